"""Requests, and results of ranks and servers, cross between processes as JSON and arrive with their types."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bench import job
from bench.job import LaunchResult
from bench.messages import RESULTS, job_message, read_job, read_result, result_message
from bench.plan.jobs import Jobs
from bench.rank_results import TimingResult
from bench.regress.untyped import PURPOSES
from results.launches import Interference, RankSamples, ServerCounts
from tests.conftest import MakeCell

SAMPLES = RankSamples([0.1], [0.2], [], 0.3, [float("inf")])
TIMED = TimingResult(samples=SAMPLES, interference=Interference(conditions={"cpus": 2.0}), seconds={"init_s": 0.5})
COUNTS = ServerCounts(0, 1, 1, 1, 8, 8, {"0": 1}, 0, {"params": 8})


def sent(*ranks: dict[str, Any]) -> dict[str, Any]:
    """What the fork server writes for a launch of these ranks and one server."""
    result: LaunchResult[Any] = LaunchResult("ok", ranks=list(ranks))
    message: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(result) | {"servers": [result_message(COUNTS)]}))
    return message


def test_results_arrive_as_they_were_returned(make_cell: MakeCell, tmp_path: Path) -> None:
    result = read_result(sent(result_message(TIMED)), Jobs(make_cell(), tmp_path).timing())
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
    message = result_message(TIMED)
    result = read_result(sent(message, message | change), Jobs(make_cell(), tmp_path).timing())
    assert (result.status, result.ranks) == ("failed", [])
    assert reason in result.reason


@pytest.mark.parametrize("purpose", PURPOSES.values())
def test_requests_arrive_as_they_were_sent(purpose: str, make_cell: MakeCell, tmp_path: Path) -> None:
    request = getattr(Jobs(make_cell(gpus=2), tmp_path), purpose)()
    assert read_job(json.loads(json.dumps(job_message(request)))) == request


def test_a_request_that_does_not_fit_is_an_error_that_names_the_field(make_cell: MakeCell, tmp_path: Path) -> None:
    message = job_message(Jobs(make_cell(), tmp_path).check())
    for change, reason in (({"kind": "Job"}, "job.kind: 'Job' is not one of LoadJob"), ({"steps": 2}, "'steps'")):
        with pytest.raises(ValueError, match=reason):
            read_job(message | change)


def test_every_kind_of_request_has_a_result_and_another_revision_has_a_name_for_it() -> None:
    kinds = {kind for kind in vars(job).values() if isinstance(kind, type) and kind.__name__.endswith("Job")}
    concrete = {kind for kind in kinds if not kind.__subclasses__()}
    assert concrete == set(RESULTS)
    assert concrete - {job.HostCheckJob} == set(PURPOSES)  # which no earlier revision had
