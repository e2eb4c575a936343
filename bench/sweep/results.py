"""What the ranks of a launch that ended well report, as fields of a record."""

from __future__ import annotations

import dataclasses

from bench.job import LaunchResult
from bench.measure.machine import interference
from results.attribution import StepParts
from results.decode import decode
from results.launches import Ceiling, Collective, CollectiveTimes, Launch, RankSamples
from results.memory import RankMemory
from results.model import Model
from results.parity import Noise, Parity
from results.record import Record
from results.updates import Updates


def model(result: LaunchResult) -> Model:
    """Of a reference."""
    found: Model = decode(result.ranks[0]["model"], Model, "model")
    return found


def noise(result: LaunchResult) -> Noise:
    """Of a launch of the reference for its noise."""
    measured: Noise = decode(result.ranks[0]["noise"], Noise, "noise")
    return measured


def ceiling(result: LaunchResult) -> Ceiling:
    """What all ranks reached together, and what disturbed them."""
    found: Ceiling = decode(result.ranks[0]["ceiling"], Ceiling, "ceiling")
    return dataclasses.replace(found, conditions=interference.together(rank["conditions"] for rank in result.ranks))


def take_check(record: Record, result: LaunchResult) -> None:
    """Puts what a check found into the record: the engine's description, memory, collectives and parity."""
    ranks = result.ranks
    record.resolved["engine"] = ranks[0]["describe"]
    if ranks[0]["memory"]:
        record.memory = [decode(rank["memory"], RankMemory, "memory") for rank in ranks]
    if ranks[0]["collectives"] is not None:
        ledgers = [decode(rank["collectives"], list[Collective], "collectives") for rank in ranks]
        record.collectives = ledgers[0]
        record.collectives_by_rank = ledgers if any(ledger != ledgers[0] for ledger in ledgers) else []
    record.updates = [decode(rank["updates"], Updates, "updates") for rank in ranks if rank.get("updates")]
    if ranks[0]["parity"]:
        record.parity = decode(ranks[0]["parity"], Parity, "parity")


def step_parts(result: LaunchResult) -> list[list[StepParts]]:
    """Of a profile: rank by rank, what its steps were made of."""
    return [decode(rank["parts"], list[StepParts], "parts") for rank in result.ranks]


def profiled_updates(result: LaunchResult) -> list[Updates]:
    return [decode(rank["updates"], Updates, "updates") for rank in result.ranks if rank.get("updates")]


def phases_s(result: LaunchResult) -> dict[str, float]:
    """Seconds of each phase of a timed launch, of the rank that took longest."""
    names = sorted({name for rank in result.ranks for name in rank["seconds"]})
    return {name: max(rank["seconds"].get(name, 0.0) for rank in result.ranks) for name in names}


def timed(result: LaunchResult, number: int, started_at: str, period: int) -> Launch:
    """The timed launch of a round."""
    return Launch(
        number,
        started_at,
        phases_s(result) | {"total_s": result.total_s},
        [decode(rank["samples"], RankSamples, "samples") for rank in result.ranks if "samples" in rank],
        result.servers,
        conditions=interference.together(rank["conditions"] for rank in result.ranks),
        foreign=result.ranks[0]["foreign"],
        collective_times=decode(result.ranks[0].get("collective_times", []), list[CollectiveTimes], "collective_times"),
        period=period,
        not_measured={what: why for rank in result.ranks for what, why in rank.get("not_measured", {}).items()},
    )
