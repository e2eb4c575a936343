"""Peak memory per rank at a world size that was not measured.

The peak at the largest measured world size, plus what the engine's formulas add or take for model state, gathered
parameters and buckets. Activations keep their bytes per sample.
"""

from __future__ import annotations

from dataclasses import replace

from analysis.metrics.memory import memory
from analysis.projection.curve import ScalingCurve
from analysis.theory import host_bytes_counted, theory_of
from analysis.theory.setting import Setting, setting


def peak_bytes(curve: ScalingCurve, ranks: int) -> int | None:
    """Bytes on the fullest rank; None where no peak was measured or the engine has no formula."""
    measured = [size for size in curve.sizes if memory(curve.records[size]).peak_bytes is not None]
    if not measured:
        return None
    size = ranks if ranks in measured else measured[-1]
    record = curve.records[size]
    cell, peak = setting(record), memory(record).peak_bytes
    if peak is None or size == ranks:
        return peak
    before = None if cell is None else _engine_bytes(cell)
    after = None if cell is None else _engine_bytes(replace(cell, world_size=ranks, shard_size=_shards(cell, ranks)))
    if before is None or after is None:
        return None
    rest = max(0, peak - before) * curve.rank_batch(ranks) / curve.rank_batch(size)
    return round(after + rest)


def _engine_bytes(cell: Setting) -> int | None:
    """Model state that the peak contains, and what the engine needs in addition to it, at most."""
    theory = theory_of(cell)
    if theory is None:
        return None
    state, in_host = theory.state(cell), host_bytes_counted(cell, theory)
    return None if state is None or in_host is None else sum(state.values()) + in_host + theory.transient(cell)


def _shards(cell: Setting, ranks: int) -> int | None:
    """Hybrid sharding keeps its groups; a group of all ranks grows with them."""
    return None if cell.shard_size in (None, cell.world_size) else min(cell.shard_size or ranks, ranks)
