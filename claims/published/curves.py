"""Published step times as a curve that ``analysis.projection`` reads, with the collectives that are assumed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from analysis.projection.curve import ScalingCurve
from results.launches import Collective, Launch, RankSamples
from results.record import Record

MIB = 1 << 20


ANY = 1
"""Ranks of a collective whose curve has not been made: ``published_curve`` sets them."""


def all_reduced(sizes_bytes: Sequence[int]) -> list[Collective]:
    """A step of DDP: an all-reduce for each bucket of fp32."""
    return [Collective("all_reduce", "float32", size // 4, ANY, 1) for size in sizes_bytes]


def fully_sharded(parameters: float, units: int, reduce_dtype: str = "bfloat16", gathers: int = 2) -> list[Collective]:
    """A step of stage 3 with as many equal units: gathers of 16-bit weights and a reduce-scatter for each.

    With one gather the weights stay whole from forward to backward, as FSDP's SHARD_GRAD_OP has them.
    """
    elements = round(parameters / units)
    return [
        Collective("all_gather", "bfloat16", elements, ANY, gathers * units),
        Collective("reduce_scatter", reduce_dtype, elements, ANY, units),
    ]


def published_curve(
    label: str,
    stage: int,
    step_s: Mapping[int, float],
    collectives: Sequence[Collective] | Mapping[int, Sequence[Collective]],
    error: float | None = None,
    *,
    per_host: int,
    nccl: str | None = None,
) -> ScalingCurve:
    """A curve from step times in seconds by world size; its collectives are those at any of them, or by world size.

    ``error`` is the relative standard error of the source's times; None: that of one launch. ``per_host`` are the GPUs
    of a host, ``nccl`` is its version where it matters.
    """
    calls = collectives if isinstance(collectives, Mapping) else dict.fromkeys(step_s, collectives)
    records = {ranks: _record(label, stage, ranks, seconds, calls[ranks]) for ranks, seconds in sorted(step_s.items())}
    for ranks, record in records.items():
        record.environment["nccl"] = nccl
        if ranks > per_host:
            record.resolved["hosts"] = [{"ranks": per_host}] * -(-ranks // per_host)
    further = {ranks: among(own, ranks) for ranks, own in calls.items() if ranks not in step_s}
    return ScalingCurve(label, records, error, further)


def among(collectives: Sequence[Collective], ranks: int) -> list[Collective]:
    """The same in groups of so many ranks."""
    return [replace(one, group_size=ranks) for one in collectives]


def _record(label: str, stage: int, ranks: int, step_s: float, collectives: Sequence[Collective]) -> Record:
    samples = RankSamples([step_s], [0.0], [], step_s, [0.0])
    return Record(
        cell_id=label,
        sweep_id="published",
        config={
            "engine": {"name": "published"},
            "workload": {"name": "published"},
            "stage": stage,
            "gpus": ranks,
            "batch_size": 1,
            "scaling": "weak",
            "network": {"kind": "none"},
        },
        resolved={"world_size": ranks, "backend": "nccl", "engine": {"overlap": True, "wrapper": "fully_shard"}},
        environment={},
        status="ok",
        collectives=among(collectives, ranks),
        launches=[Launch(0, "", {}, [samples])],
    )
