"""Results of ranks and servers cross between processes as JSON and arrive with their types."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bench.job import LaunchResult
from bench.measure.machine.interference import Interference
from bench.rank_results import TimingResult, as_message, read
from results.launches import RankSamples, ServerCounts
from tests.conftest import MakeCell

SAMPLES = RankSamples([0.1], [0.2], [], 0.3, [float("inf")])
TIMED = TimingResult(samples=SAMPLES, interference=Interference({"cpus": 2.0}), seconds={"init_s": 0.5})
COUNTS = ServerCounts(0, 1, 1, 1, 8, 8, {"0": 1}, 0, {"params": 8})


def sent(*ranks: dict[str, Any]) -> dict[str, Any]:
    """What the fork server writes for a launch of these ranks and one server."""
    result: LaunchResult[Any] = LaunchResult("ok", ranks=list(ranks))
    message: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(result) | {"servers": [as_message(COUNTS)]}))
    return message


def test_results_arrive_as_they_were_returned(make_cell: MakeCell, tmp_path: Path) -> None:
    result = read(sent(as_message(TIMED)), make_cell().job("timing", tmp_path))
    assert (result.status, result.ranks, result.servers) == ("ok", [TIMED], [COUNTS])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"samples": None}, r"ranks[1].samples: expected dict, found NoneType"),
        ({"parity": None}, r"ranks[1]: unknown field 'parity'"),
    ],
)
def test_a_rank_that_returns_something_else_fails_the_launch(
    change: dict[str, Any], reason: str, make_cell: MakeCell, tmp_path: Path
) -> None:
    message = as_message(TIMED)
    result = read(sent(message, message | change), make_cell().job("timing", tmp_path))
    assert (result.status, result.ranks) == ("failed", [])
    assert reason in result.reason
