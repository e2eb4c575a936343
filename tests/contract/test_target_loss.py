"""Training until a loss, with real ranks: it ends early, on all of them at once, from a seed of each round's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.launch.launcher import Launcher
from bench.plan.jobs import Jobs
from results.settings import Straggler
from results.target import WINDOW
from tests.conftest import MakeCell, group


@pytest.mark.parametrize("engine", ["native", "parameter_server"])
def test_all_ranks_end_with_the_block_that_reaches_it(
    engine: str, make_cell: MakeCell, launcher: Launcher, scratch: Path
) -> None:
    cell = make_cell(engine=engine, gpus=2, steps=200, target_loss=1.5, lr=3e-3)
    first, other = (launcher.launch(Jobs(cell, scratch).timed(number=number)) for number in (0, 1))
    assert (first.status, other.status) == ("ok", "ok"), (first.reason, other.reason)
    for outcome in (first, other):
        (count,) = {len(rank.samples.losses) for rank in outcome.ranks}
        assert count < 200 and count % WINDOW == 0
        last = [loss for rank in outcome.ranks for loss in rank.samples.losses[-WINDOW:]]
        assert sum(last) / len(last) <= 1.5
    assert first.ranks[0].samples.losses[0] != other.ranks[0].samples.losses[0]


def test_ranks_that_do_not_wait_in_steps_do_not_wait_for_the_target_either(
    make_cell: MakeCell, launcher: Launcher, scratch: Path
) -> None:
    served = group("engine", "parameter_server") | {"mode": "async"}
    slow = Straggler(rank=1, factor=6)
    cell = make_cell(engine=served, gpus=2, steps=400, target_loss=1.5, lr=1e-3, straggler=slow)
    outcome = launcher.launch(Jobs(cell, scratch).timing())
    assert outcome.status == "ok", outcome.reason
    fast, late = (len(rank.samples.losses) for rank in outcome.ranks)
    assert late < fast < 400
