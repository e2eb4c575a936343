"""Requests and results of launches as JSON, and back: the only place that converts them. Strict in both directions."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from bench.job import (
    CeilingJob,
    CheckJob,
    CollectivesJob,
    HostCheckJob,
    Job,
    LaunchResult,
    LoadJob,
    NoiseJob,
    ProfileJob,
    R,
    ReferenceJob,
    TimingJob,
)
from bench.rank_results import (
    CeilingResult,
    CheckResult,
    CollectivesResult,
    HostCheckResult,
    LoadResult,
    NoiseResult,
    ProfileResult,
    RankResult,
    ReferenceResult,
    TimingResult,
)
from results.decode import decode
from results.launches import ServerCounts
from results.shown import shown

RESULTS: dict[type[Job[Any]], type[RankResult]] = {
    LoadJob: LoadResult,
    ReferenceJob: ReferenceResult,
    NoiseJob: NoiseResult,
    CheckJob: CheckResult,
    CeilingJob: CeilingResult,
    HostCheckJob: HostCheckResult,
    TimingJob: TimingResult,
    ProfileJob: ProfileResult,
    CollectivesJob: CollectivesResult,
}
"""Every kind of launch, with the result of its ranks."""
KINDS = {kind.__name__: kind for kind in RESULTS}


def job_message(job: Job[Any]) -> dict[str, Any]:
    """A request in JSON types, with its kind."""
    return {"kind": type(job).__name__} | dataclasses.asdict(job)


def read_job(message: dict[str, Any]) -> Job[Any]:
    """The request of a message. Raises ValueError, which names the field that does not fit."""
    kind = KINDS.get(message.get("kind", ""))
    if kind is None:
        raise ValueError(f"job.kind: {shown(message.get('kind'))} is not one of {', '.join(KINDS)}")
    fields = {name: value for name, value in message.items() if name != "kind"}
    return cast(Job[Any], decode(fields, kind, "job"))


def result_message(result: RankResult | ServerCounts) -> dict[str, Any]:
    """The result of one process in JSON types."""
    return dataclasses.asdict(result)


def read_result(message: dict[str, Any], job: Job[R]) -> LaunchResult[R]:
    """The result of a launch of ``job``, with typed results of its ranks and servers.

    A process that returned something else fails the launch.
    """
    ranks, servers, kind = message.get("ranks"), message.get("servers"), RESULTS[type(job)]
    whole: LaunchResult[R] = decode(message | {"ranks": [], "servers": []}, LaunchResult, "result")
    try:
        return dataclasses.replace(
            whole,
            ranks=decode(ranks, list[kind], "ranks"),  # type: ignore[valid-type]
            servers=decode(servers, list[ServerCounts], "servers"),
        )
    except ValueError as error:
        return dataclasses.replace(whole, status="failed", reason=f"a process returned no valid result: {error}")
