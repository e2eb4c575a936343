"""From the results of ranks to the fields of a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from bench.job import LaunchResult
from bench.measure.machine import launch_conditions
from bench.placement import first_ranks
from bench.rank_results import (
    CeilingResult,
    CheckResult,
    CollectivesResult,
    ProfileResult,
    RankResult,
    TimingResult,
)
from results.launches import Ceiling, Launch
from results.record import Record
from results.traces import RankTraces, Traces
from results.updates import Updates


def ceiling(result: LaunchResult[CeilingResult], ranks_by_host: Sequence[int] = ()) -> Ceiling:
    """The peak FLOP/s of all ranks at once, with the interference of the host that was disturbed most."""
    by_host = launch_conditions.of_hosts([rank.interference.conditions for rank in result.ranks], ranks_by_host)
    conditions = max(by_host, key=lambda host: host.get("background_cpu_s", 0.0) + host.get("throttled_s", 0.0))
    return dataclasses.replace(result.ranks[0].ceiling, conditions=conditions)


def take_check(record: Record, result: LaunchResult[CheckResult]) -> None:
    """Puts the results of a check into the record: the engine's description, memory, collectives and parity."""
    ranks = result.ranks
    record.resolved["engine"] = ranks[0].description
    if ranks[0].memory:
        record.memory = [rank.memory for rank in ranks if rank.memory]
    collectives = [rank.collectives for rank in ranks if rank.collectives is not None]
    if collectives:
        record.collectives = collectives[0]
        record.collectives_by_rank = collectives if any(entry != collectives[0] for entry in collectives) else []
    record.updates = updates(result)
    if ranks[0].parity:
        record.parity = ranks[0].parity
    take_traces(record, result)


def take_traces(record: Record, result: LaunchResult[CheckResult] | LaunchResult[ProfileResult]) -> None:
    """Adds the trace files that a launch wrote to the record."""
    ranks: list[CheckResult] | list[ProfileResult] = result.ranks
    add_traces(record, [rank.traces for rank in ranks if rank.traces])


def add_traces(record: Record, ranks: list[RankTraces]) -> None:
    if ranks:
        record.traces = (record.traces or Traces()).joined(ranks)


def updates(result: LaunchResult[CheckResult] | LaunchResult[ProfileResult]) -> list[Updates]:
    """Whether the observed steps updated the weights, rank by rank."""
    return [rank.updates for rank in result.ranks if rank.updates]


def longest_s(result: LaunchResult[Any]) -> dict[str, float]:
    """Seconds of each phase, of the rank that took longest."""
    ranks: list[RankResult] = result.ranks
    names = sorted({name for rank in ranks for name in rank.seconds})
    return {name: max(rank.seconds.get(name, 0.0) for rank in ranks) for name in names}


def timed(
    result: LaunchResult[TimingResult] | LaunchResult[CollectivesResult],
    number: int,
    started_at: str,
    period: int,
    ranks_by_host: Sequence[int] = (),
) -> Launch:
    """The timed launch of a round; ``ranks_by_host`` is empty where all ranks are on one."""
    disturbances = [rank.interference for rank in result.ranks]
    by_host = launch_conditions.of_hosts(launch_conditions.whole_sums(disturbances), ranks_by_host)
    first = result.ranks[0]
    return Launch(
        number,
        started_at,
        longest_s(result) | {"total_s": result.total_s},
        [rank.samples for rank in result.ranks if isinstance(rank, TimingResult)],
        result.servers,
        conditions=launch_conditions.added_up(by_host) if ranks_by_host else by_host[0],
        background_processes={} if ranks_by_host else disturbances[0].background_processes,
        conditions_by_host=by_host if ranks_by_host else [],
        background_processes_by_host=[disturbances[at].background_processes for at in first_ranks(ranks_by_host)],
        collective_times=first.collective_times if isinstance(first, CollectivesResult) else [],
        period=period,
        not_measured=launch_conditions.not_measured(disturbances),
    )
