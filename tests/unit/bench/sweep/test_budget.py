"""The time budget: whole rounds, none that would end too late, and a clear line when it is spent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from bench.plan.cell import Cell
from bench.plan.resolve import plan
from bench.sweep.budget import Budget, duration
from bench.sweep.run import run_rounds
from bench.sweep.turns import Turns
from results.settings import Config
from tests.conftest import CPU_ONLY


class Clock:
    """Seconds that only turns take."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class TimedTurns:
    """Turns of ``turn_s`` each; remembers which configuration had one in which round."""

    def __init__(self, clock: Clock, turn_s: float) -> None:
        self.clock, self.turn_s = clock, turn_s
        self.taken: list[tuple[str, int]] = []

    def any_left(self, cells: Sequence[Cell]) -> bool:
        return True

    def take(self, cell: Cell, number: int) -> None:
        self.clock.now_s += self.turn_s
        self.taken.append((cell.id, number))


@pytest.mark.parametrize(
    ("seconds", "spent_before_s", "rounds"),
    [
        (None, 0, 10),
        (1000, 0, 10),
        (49, 0, 4),  # a round takes 12 s: four end after 48
        (47.9, 0, 3),
        (61, 12, 4),  # what comes before the rounds counts
        (12.5, 12, 1),  # the duration of the first one is unknown
        (11, 12, 0),
    ],
)
def test_rounds_are_whole_and_end_within_the_budget(
    make_config: Callable[..., Config], seconds: float | None, spent_before_s: float, rounds: int
) -> None:
    cells = plan([make_config(stage=stage, repeats=10) for stage in (0, 1, 2)], CPU_ONLY, cores=2)
    clock = Clock()
    budget = Budget(seconds, clock)
    clock.now_s += spent_before_s
    turns: Any = TimedTurns(clock, 4.0)
    assert run_rounds(cells, cast(Turns, turns), 0, budget) is (rounds == 10)
    assert budget.rounds == rounds
    assert sorted(turns.taken) == sorted((cell.id, number) for cell in cells for number in range(rounds))


def test_a_spent_budget_names_what_intervals_lack() -> None:
    budget = Budget(2700)
    assert budget.spent(10, launches=7) == "time budget of 45 min spent after 0 of 10 rounds"
    assert budget.spent(10, launches=4).endswith(
        "95 % confidence intervals need 6 launches per configuration, and there are 4: raise budget_s, or continue "
        "this sweep with resume=true"
    )


def test_a_budget_is_printed_as_a_person_writes_it() -> None:
    assert [duration(seconds) for seconds in (30, 90, 120, 2700, 100.5)] == [
        *("30 s", "90 s", "2 min", "45 min", "100.5 s")
    ]
