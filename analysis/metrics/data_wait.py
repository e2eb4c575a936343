"""The wait of measured steps for their batches (``data=loader``), over the launches of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean, median

from analysis.metrics.counterparts import counterparts
from analysis.metrics.rounds import in_shared_rounds
from analysis.metrics.time import throughput_per_s
from analysis.statistics import medians, paired
from analysis.statistics.medians import Interval
from results.launches import Launch
from results.record import Record

COLUMNS = [
    *("data_wait_s", "data_wait_s_low", "data_wait_s_high"),
    *("data_wait_share", "data_wait_share_low", "data_wait_share_high"),
    "loader_per_s",
    *("pool_throughput_ratio", "pool_throughput_ratio_low", "pool_throughput_ratio_high"),
]
ONE_SIDED = 0.025
HOW_DATA_COME = ("data", "data_dir", "loader.workers", "loader.prefetch", "loader.pin_memory", "measure.batch_pool")
"""Settings in which a configuration may differ from its partner with a pool."""
LIMIT = 0.05
"""Share of the throughput that must be lost to data before the loader counts as a bottleneck."""


@dataclass(frozen=True)
class DataWait:
    """Waiting for data, per step: of the slowest rank, as step time is."""

    seconds: Interval
    """Mean over the steps of a launch; median over launches."""
    share: Interval
    """Of the time of the steps."""
    loader_per_s: float = nan
    """Units per second that the loaders of all ranks read while none trained, median over launches.

    Ranks that train one copy of the model read the same units, which count once. NaN with backend=fake: the other
    ranks are missing.
    """
    over_pool: Interval | None = None
    """Throughput of the same configuration with ``data=pool`` over this one's, paired by round; None without it."""

    @property
    def is_bottleneck(self) -> bool | None:
        """Whether more than ``LIMIT`` of the throughput is lost to data; None where intervals cannot decide it."""
        if self.lost is None:
            return None
        low, high = self.lost
        if low > LIMIT:
            return True
        return False if high <= LIMIT else None

    @property
    def lost(self) -> tuple[float, float] | None:
        """The interval of the share of the throughput that is lost: against the pool, else the share of waiting.

        None for one launch, which has no interval.
        """
        if self.over_pool and self.over_pool.launches > 1:
            return 1 - 1 / self.over_pool.low, 1 - 1 / self.over_pool.high
        if self.share.launches > 1:
            return self.share.low, self.share.high
        return None


def data_waits(records: Sequence[Record]) -> list[DataWait | None]:
    """One for each record whose steps waited for a DataLoader; None for the others."""
    pools = counterparts(records, HOW_DATA_COME, lambda other: other.config.get("data", "pool") == "pool")
    return [_data_wait(record, pool) for record, pool in zip(records, pools, strict=True)]


def _data_wait(record: Record, pool: Record | None) -> DataWait | None:
    waited = [launch for launch in record.launches if any(rank.data_s for rank in launch.ranks)]
    if not waited:
        return None
    waits = [fmean(wait_s(launch)) for launch in waited]
    shares = [wait / fmean(launch.step_times_s()) for wait, launch in zip(waits, waited, strict=True)]
    alone = [_alone_per_s(record, launch) for launch in waited]
    return DataWait(
        medians.median_interval(waits),
        medians.median_interval(shares),
        median(alone) * record.model.units_per_sample if record.model else nan,
        _over_pool(record, pool) if pool else None,
    )


def _alone_per_s(record: Record, launch: Launch) -> float:
    """Different samples per second that all ranks read; NaN where one rank stands for all."""
    if record.resolved.get("simulated"):
        return nan
    per_s = sum(rank.loader_per_s or nan for rank in launch.ranks)
    return per_s / int(record.resolved.get("ranks_per_replica") or 1)


def wait_s(launch: Launch) -> list[float]:
    """The wait of each step: the rank's that waits longest, of those that had that many steps."""
    most = max(len(rank.data_s) for rank in launch.ranks)
    return [max(rank.data_s[step] for rank in launch.ranks if len(rank.data_s) > step) for step in range(most)]


def _over_pool(record: Record, pool: Record) -> Interval | None:
    logs = paired.logs_of_ratios(*in_shared_rounds(record, pool, throughput_per_s))
    return paired.ratio_interval(logs, ONE_SIDED) if logs.size else None


def columns(waited: DataWait | None) -> dict[str, float]:
    """The columns of a row."""
    if waited is None:
        return {}
    values = {
        "data_wait_s": waited.seconds,
        "data_wait_share": waited.share,
        "pool_throughput_ratio": waited.over_pool or medians.NOTHING,
    }
    return {"loader_per_s": waited.loader_per_s} | {
        f"{name}{end}": value
        for name, interval in values.items()
        for end, value in (("", interval.value), ("_low", interval.low), ("_high", interval.high))
    }
