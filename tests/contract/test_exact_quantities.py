"""The exact gate on engines that really run: what is done to one is found, and nothing is found where nothing was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from analysis.comparison.counter_check import CounterDifference, differences, exit_code, measured
from results.record import Record
from tests.conftest import AsRecord, MakeCell, RunCheck

MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 5, "width": 62, "bias": True}
ALL = {"parity_steps": 3, "memory": True, "collectives": True}
Checked = Callable[..., Record]


@pytest.fixture
def checked(make_cell: MakeCell, run_check: RunCheck, as_record: AsRecord) -> Checked:
    """A cell's record, as far as its check goes."""

    def check(**settings: Any) -> Record:
        cell = make_cell(gpus=2, workload=MLP, measure=ALL, batch_size=12, **settings)
        ranks = run_check(cell)
        record = as_record(cell, ranks)
        record.memory = [rank.memory for rank in ranks if rank.memory]
        ledgers = [rank.collectives for rank in ranks if rank.collectives is not None]
        record.collectives, record.collectives_by_rank = ledgers[0], ledgers
        record.parity = ranks[0].parity
        record.status = "ok" if record.parity.passed else "parity_failed"
        return record

    return check


def wrong(fault: str) -> dict[str, str]:
    return {"name": "wrong", "package": "tests.wrong_engine", "fault": fault}


def between(before: Record, now: Record) -> dict[str, CounterDifference]:
    """What the gate finds, with ``now`` taken for the same cell."""
    now.config = before.config
    entries = differences(measured([before]), measured([now]))
    assert {difference.libraries for difference in entries} <= {""}
    return {difference.quantity: difference for difference in entries}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_runs_of_the_same_code_are_equal(stage: int, checked: Checked) -> None:
    settings = {"engine": "native", "stage": stage, "bucket_mb": 0.02}
    assert between(checked(**settings), checked(**settings)) == {}


def test_an_added_collective_is_detected(checked: Checked) -> None:
    changes = between(checked(engine=wrong("none")), checked(engine=wrong("extra_all_reduce")))
    weight = changes["all_reduce float32[3844] among 2"]
    assert (weight.before, weight.now) == (5, 6)
    assert exit_code(list(changes.values())) == 1


def test_an_added_buffer_is_found_though_the_engine_does_not_own_up_to_it(checked: Checked) -> None:
    changes = between(checked(engine=wrong("none")), checked(engine=wrong("extra_buffer")))
    assert set(changes) == {"at rest without communication, bytes"}
    rest = changes["at rest without communication, bytes"]
    assert (rest.before, rest.now) == (240_352, 244_352)


def test_lost_parity_is_detected(checked: Checked) -> None:
    changes = between(checked(engine=wrong("none")), checked(engine=wrong("unreduced")))
    assert [(changes[key].before, changes[key].now) for key in ("status", "parity")] == [
        ("ok", "parity_failed"),
        ("passed", "failed"),
    ]


def test_buckets_that_are_cut_otherwise_are_found(checked: Checked) -> None:
    changes = between(
        checked(engine="native", stage=2, bucket_mb=0.02), checked(engine="native", stage=2, bucket_mb=0.04)
    )
    assert (changes["engine: buckets"].before, changes["engine: buckets"].now) == (5, 3)
    assert {"engine: largest_bucket_bytes", "collectives in a step", "peak, bytes"} <= set(changes)
