"""Advice whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from analysis.advice.recommend import Advice, AdviceLimits, advise, lines
from analysis.table.frame import frame
from results.record import Record
from tests.fakes import bare, cell, launch, measured, write_all

WOBBLE = (1.0, 1.3, 0.9, 1.1, 1.2, 1.0)
"""Rounds of a machine that drifts: each slows all cells alike."""


def timed(
    stage: int, step_s: float, peak_bytes: int, gpus: int = 2, own: tuple[float, ...] = (), **more: Any
) -> Record:
    factors = own or (1.0,) * len(WOBBLE)
    runs = [
        launch(at, [[step_s * wobble * factor] * 4] * gpus)
        for at, (wobble, factor) in enumerate(zip(WOBBLE, factors, strict=True))
    ]
    return measured(cell(stage, gpus, runs, verdicts=more.pop("verdicts", []), **more), peak_bytes=peak_bytes)


def advice(records: list[Record], **limits: Any) -> Advice:
    (task_advice,) = advise(records, frame(records), AdviceLimits(**limits))
    return task_advice


def four_stages() -> list[Record]:
    unsteady = (1.02, 0.97, 1.03, 0.98, 1.01, 0.99)
    return [
        timed(0, 0.010, 40_000_000),
        timed(1, 0.010, 30_000_000, own=unsteady),
        timed(2, 0.012, 20_000_000),
        timed(3, 0.015, 35_000_000),
    ]


def test_ties_with_the_fastest_are_sorted_by_peak_memory() -> None:
    answer = advice(four_stages())
    assert [choice.row["stage"] for choice in answer.tied] == [1, 0]
    assert answer.tied[0].overrides == "engine=torch workload=digits stage=1 gpus=2"
    assert [choice.row["stage"] for choice in answer.front] in ([0, 1, 2], [1, 2]), "3 is slower than 2 and larger"
    words = "\n".join(lines(answer))
    assert "Use  engine=torch workload=digits stage=1 gpus=2" in words
    assert "the fastest has 1.2" in words


def test_one_launch_ties_nothing() -> None:
    records = [measured(cell(stage, 2, [launch(0, [[0.01 + 0.001 * stage]] * 2)])) for stage in (0, 3)]
    answer = advice(records)
    assert [choice.row["stage"] for choice in answer.tied] == [0]
    assert "It is the fastest; one launch is too few to assess ties." in "\n".join(lines(answer))


def test_what_limits_leave_out_is_named() -> None:
    answer = advice(four_stages(), memory_bytes=25e6)
    assert [choice.row["stage"] for choice in answer.tied] == [2]
    assert {name: why.partition(" ")[0] for name, why in answer.rejected} == {
        "stage 0": "peak",
        "stage 1": "peak",
        "stage 3": "peak",
    }


def test_efficiency_and_world_size_are_limits_too() -> None:
    records = [timed(0, 0.010, 10**7, gpus=1), timed(0, 0.016, 10**7, gpus=2), timed(0, 0.011, 10**7, gpus=4)]
    assert [choice.row["gpus"] for choice in advice(records).tied] == [4]
    assert [choice.row["gpus"] for choice in advice(records, gpus=2).tied] == [2]
    assert [choice.row["gpus"] for choice in advice(records, gpus=2, efficiency=0.8).tied] == [1]


def test_what_failed_or_was_simulated_is_never_advised() -> None:
    records = [
        timed(0, 0.020, 10**7),
        timed(1, 0.001, 10**7, verdicts=["simulated"]),
        timed(2, 0.001, 10**7, status="parity_failed"),
        bare("oom", "rank 0: out of memory", 3, 2),
    ]
    answer = advice(records)
    assert [choice.row["stage"] for choice in answer.tied] == [0]
    assert dict(answer.rejected) == {"stage 1": "simulated", "stage 2": "parity failed", "stage 3": "oom"}


def test_each_task_has_advice_of_its_own() -> None:
    records = [timed(stage, 0.01, 10**7, batch_size=size) for stage in (0, 1) for size in (8, 64)]
    assert [answer.task for answer in advise(records, frame(records), AdviceLimits())] == [
        "batch_size 8",
        "batch_size 64",
    ]


def test_the_command_exits_with_status_1_if_nothing_keeps_the_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_all(four_stages(), tmp_path)
    assert main(["advise", str(folder), "--memory", "1MiB"]) == 1
    assert "No setting keeps the limits:\n  stage 0: peak" in capsys.readouterr().out
    assert main(["advise", str(folder), "--memory", "1GiB"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main(["advise", str(folder), "--memory", "much"])
    assert "'much' is not a size; valid: such as 16GiB" in capsys.readouterr().err


def test_the_command_spells_out_every_setting_that_was_not_asked_for_by_default() -> None:
    records = [timed(stage, 0.01, 10**7, batch_size=8, workload__width=64, optimizer="sgd") for stage in (0, 3)]
    command = advice(records).tied[0].command
    for override in ("batch_size=8", "workload.width=64", "optimizer=sgd", "precision=fp32"):
        assert override in command.split()
    nccl = [timed(0, step_s, 10**7, backend=backend) for step_s, backend in ((0.01, "gloo"), (0.005, "nccl"))]
    assert advice(nccl).tied[0].overrides == "engine=torch workload=digits stage=0 gpus=2 backend=nccl"
    assert advice(nccl).tied[0].name == "nccl"


def test_that_nothing_is_tied_is_stated_with_its_level_and_with_what_is_undecided() -> None:
    few = [timed(0, 0.010, 10**7), timed(1, 0.020, 10**7), timed(2, 0.011, 10**7)]
    few[1].launches, few[2].launches = few[1].launches[:2], few[2].launches[:1]
    text = "\n".join(lines(advice(few)))
    assert "nothing is tied with it. Intervals: 50 % (2 launches). Without one, of a single launch: 1 setting." in text


def test_what_disturbed_a_setting_is_shown_next_to_its_numbers() -> None:
    records = [timed(0, 0.010, 10**7, verdicts=["throttled", "synthetic_data"]), timed(1, 0.020, 10**6)]
    assert "but: throttled\n" in "\n".join(lines(advice(records)))


def test_memory_on_servers_is_never_called_lowest() -> None:
    records = [timed(0, 0.010, 10**7), timed(1, 0.010, 10**6, verdicts=["state_on_servers"])]
    assert [choice.row["stage"] for choice in advice(records).tied] == [0, 1]
    records[1] = timed(1, 0.020, 10**6, verdicts=["state_on_servers"])
    assert [choice.row["stage"] for choice in advice(records).front] == [0]


def test_an_efficiency_of_nothing_smaller_keeps_no_limit() -> None:
    records = [timed(0, 0.010, 10**7, gpus=1), timed(0, 0.011, 10**7, gpus=2), timed(3, 0.009, 10**7, gpus=2)]
    answer = advice(records, efficiency=0.8)
    assert [choice.row["stage"] for choice in answer.tied] == [0]
    assert answer.rejected == [("stage 3 · 2 ranks", "no efficiency: no smaller world of it was timed")]


def test_cells_without_steps_are_left_out() -> None:
    collectives = cell(0, 2, [launch(0, [])])
    assert advice([timed(1, 0.01, 10**7), collectives]).rejected == [("stage 0", "no steps timed")]
