"""Invariants of a valid record: each by name, with the numbers of a record that violates it.

Evaluated where warnings are computed, and for the scaling efficiency, which needs other records, where they are read.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable

from results.launches import in_periods
from results.record import Record, shard_size

MAX_MFU = 1.2
"""Beyond 1 for ranks that have a core for themselves while others communicate, as they have not for the ceiling."""
MAX_EFFICIENCY = 1.25
"""Beyond 1 for parts of a model that fit a cache, and for noise of the smaller world."""
CLOCKS = 0.01
"""Share by which sums of times may be off."""
BYTES = 0.01
"""Share by which counted bytes may fall short of the least."""


def violations(record: Record) -> dict[str, str]:
    """The invariants that the record breaks, by name, with its numbers."""
    breaks = {name: broken(record) for name, broken in INVARIANTS.items()}
    return {name: words for name, words in breaks.items() if words}


def efficiency_violation(efficiency: float, low: float) -> str:
    """Whether scaling is far better than linear; ``low`` is the low end of its interval, NaN where there is none."""
    sure = efficiency if math.isnan(low) else low
    if not sure > MAX_EFFICIENCY:  # False for NaN
        return ""
    return f"scaling efficiency is {efficiency:.0%}, above {MAX_EFFICIENCY:.0%}: its baseline may have been disturbed"


def peak_covers_rest(record: Record) -> str:
    pairs = [(memory.rest_bytes, memory.peak_bytes, rank) for rank, memory in enumerate(record.memory)]
    return _first(
        f"rank {rank} has {peak} bytes at the peak, {rest} at rest" for rest, peak, rank in pairs if rest > peak
    )


def peak_covers_state(record: Record) -> str:
    pairs = [(memory.model_state_bytes, memory.peak_bytes, rank) for rank, memory in enumerate(record.memory)]
    return _first(
        f"rank {rank} has {peak} bytes at the peak, {state} of model state"
        for state, peak, rank in pairs
        if state > peak
    )


def rest_covers_optimizer(record: Record) -> str:
    """Master weights and optimizer state stay from step to step, at every stage."""
    kept = [sum(memory.state_bytes.get(kind, 0) for kind in ("master", "optimizer")) for memory in record.memory]
    return _first(
        f"rank {rank} has {memory.rest_bytes} bytes at rest, {size} of master weights and optimizer state"
        for rank, (memory, size) in enumerate(zip(record.memory, kept, strict=True))
        if size > memory.rest_bytes
    )


def sent_covers_gradients(record: Record) -> str:
    """At any stage a rank sends gradients and passes on sums or weights: 2·(N-1)/N of what is trained."""
    sent, least = sent_bytes(record), least_sent_bytes(record)
    if sent is None or least is None or sent >= (1 - BYTES) * least:
        return ""
    return f"a rank sends {sent:.0f} bytes per step; data parallelism needs at least {least:.0f}"


def sent_bytes(record: Record) -> float | None:
    """Mean over ranks; None where not all is counted."""
    ledgers = record.collectives_by_rank or [record.collectives or []]
    sent = [line.sent_bytes for ledger in ledgers for line in ledger]
    if record.collectives is None or record.resolved.get("uncounted") or None in sent:
        return None
    return sum(size for size in sent if size is not None) / len(ledgers)


def least_sent_bytes(record: Record) -> float | None:
    """None where ranks need not exchange all gradients in each step, or not in the dtype that is counted here."""
    config, resolved, model = record.config, record.resolved, record.model
    ranks = resolved.get("world_size") or 1
    partial = (
        resolved.get("outside_parity"),
        resolved.get("servers"),
        resolved.get("simulated"),
        resolved.get("ranks_per_replica", 1) > 1,
        shard_size(record),
        config.get("compression", "none") != "none",
        (config.get("local_steps") or 1) > 1,
    )
    if model is None or ranks < 2 or any(partial) or model.step.skipped:
        return None
    lines = [line for ledger in record.collectives_by_rank or [record.collectives or []] for line in ledger]
    sizes = [line.size_bytes // line.elements for line in lines if "float" in line.dtype and line.elements]
    trained = sum(math.prod(weight.shape) for weight in model.parameters if weight.requires_grad)
    return 2 * (ranks - 1) / ranks * trained * min(sizes, default=4)


def mfu_within_reason(record: Record) -> str:
    """Ranks do not do the model's operations much faster than matrix products alone, unless one is counted wrong."""
    mfu = utilization(record)
    if not mfu > MAX_MFU:  # False for NaN
        return ""
    return f"MFU is {mfu:.0%}, above {MAX_MFU:.0%}: operations or the ceiling are counted wrong"


def utilization(record: Record) -> float:
    """MFU of the median step; NaN where something was not measured."""
    timed = [launch for launch in record.launches if launch.ranks]
    if record.ceiling is None or record.model is None or record.resolved.get("simulated") or not timed:
        return math.nan
    rank_batch: int = record.resolved["rank_batch"]
    rank_flops = record.model.flops_per_unit * record.model.units_per_sample * rank_batch
    times = [in_periods(launch.step_times_s(), launch.period) for launch in timed]
    step_s = statistics.median(map(statistics.median, times))
    return rank_flops / (record.ceiling.flops_per_s * step_s)


def launch_covers_steps(record: Record) -> str:
    """The steps of a rank take no longer than the time in which they were taken."""
    sums = [
        (sum(rank.step_times_s()), rank.wall_s, launch.round)
        for launch in record.launches
        for rank in launch.ranks
        if rank.wall_s > 0
    ]
    return _first(
        f"steps of round {number} add up to {steps_s:.4g} s, taken in {wall_s:.4g} s"
        for steps_s, wall_s, number in sums
        if steps_s > (1 + CLOCKS) * wall_s
    )


def _first(words: Iterable[str]) -> str:
    return next(iter(words), "")


INVARIANTS: dict[str, Callable[[Record], str]] = {
    "peak >= rest": peak_covers_rest,
    "peak >= model state": peak_covers_state,
    "rest >= optimizer state": rest_covers_optimizer,
    "bytes >= least": sent_covers_gradients,
    "MFU within reason": mfu_within_reason,
    "wall time >= steps": launch_covers_steps,
}
