"""Raw samples of time: launches, their ranks, and the collectives of a step."""

from __future__ import annotations

import functools
import itertools
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from results.updates import Updates


@dataclass(frozen=True)
class Collective:
    """Collectives of one step that are alike, as a rank called them; ``send`` and ``recv`` are point to point."""

    kind: str
    """all_reduce, reduce_scatter, all_gather, broadcast, send, recv, ...:
    ``bench.measure.communication.ledger.CALLS``."""
    dtype: str
    """As torch names it, such as ``float32``; empty for a barrier."""
    elements: int
    """Of the whole array: what each rank has after an all-gather, and before a reduce-scatter."""
    group_size: int
    """Ranks of the group."""
    count: int
    """Calls per step."""

    @property
    def size_bytes(self) -> int:
        """Of the whole array of one of them."""
        bits = re.search(r"\d+", self.dtype)  # such as 16 in bfloat16; a bool is a byte
        return self.elements * (int(bits.group()) // 8 if bits else 1)

    @property
    def total_bytes(self) -> int:
        return self.count * self.size_bytes

    @property
    def sent_bytes(self) -> float | None:
        """Bytes that a rank sends for all of them (mean over the ranks of the group); None for an unknown kind.

        With f = (N-1)/N and S the bytes of the whole array: all-reduce 2f·S, reduce-scatter, all-gather and all-to-all
        f·S. To or from one rank: broadcast and reduce f·S, gather and scatter f·S/N. A send is S, a receive nothing.
        """
        ranks = self.group_size
        share = {
            "all_reduce": 2 * (ranks - 1),
            "reduce_scatter": ranks - 1,
            "all_gather": ranks - 1,
            "all_to_all": ranks - 1,
            "broadcast": ranks - 1,
            "reduce": ranks - 1,
            "gather": (ranks - 1) / ranks,
            "scatter": (ranks - 1) / ranks,
            "send": ranks,
            "recv": 0,
            "barrier": 0,
        }.get(self.kind)
        return None if share is None else self.total_bytes * share / ranks


@dataclass(frozen=True)
class RankSamples:
    """Raw samples of one rank in one launch; every list has one entry per step."""

    forward_backward_s: list[float]
    """Forward and backward of each measured step, in seconds."""
    optimizer_s: list[float]
    """Update of each measured step."""
    warmup_step_s: list[float]
    """Warm-up steps, which enter no statistic."""
    wall_s: float
    """From the barrier before the first measured step to the end of the last one."""
    losses: list[float]
    """Mean loss over this rank's share of each measured step's global batch."""
    backlog_s: float | None = None
    """What a GPU still had to do when the host had launched the last measured step; None on a CPU."""
    updates: Updates | None = None
    """Whether the measured steps updated the weights; None in records of versions that did not look."""

    data_s: list[float] = field(default_factory=list)
    """Waiting for the batch of each measured step (``data=loader``); empty where batches were ready."""
    loader_per_s: float | None = None
    """Samples per second that the rank's loader read after the measured steps, while no rank trained."""

    def step_times_s(self) -> list[float]:
        parts = filter(None, [self.data_s, self.forward_backward_s, self.optimizer_s])
        return [sum(step) for step in zip(*parts, strict=True)]

    def training_times_s(self) -> list[float]:
        """Of each measured step without the wait for its batch: forward, backward and update."""
        return [sum(step) for step in zip(self.forward_backward_s, self.optimizer_s, strict=True)]


@dataclass(frozen=True)
class CollectiveTimes:
    """One collective at one size, timed by itself."""

    kind: str
    """all_reduce, reduce_scatter, all_gather, broadcast or all_to_all."""
    size_bytes: int
    """Of the whole array: what each rank has after an all-gather, and before a reduce-scatter."""
    times_s: list[float]
    """Of each iteration: the slowest rank's."""


@dataclass(frozen=True, kw_only=True)
class Interference:
    """Counters around measured steps (``results.conditions``)."""

    conditions: dict[str, float] = field(default_factory=dict)
    """By counter; those that the machine does not have are absent."""
    background_processes: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the other processes that used most meanwhile, by name."""
    not_measured: dict[str, str] = field(default_factory=dict)
    """Counters that could not be read, and why; one that the machine does not have is not among them."""


@dataclass(frozen=True)
class ServerCounts:
    """Counts of one parameter server from the first gradient on, warm-up included. Bytes are payload."""

    server: int
    """Its index."""
    gradients_received: int
    gradients_applied: int
    updates: int
    bytes_in: int
    bytes_out: int
    delays: dict[str, int]
    """Gradients by delay: the updates between their worker's pull and their own."""
    max_clock_gap: int
    """Steps by which a worker was ahead of another at most."""
    state_bytes: dict[str, int]
    """Memory of the server's part of the model state, by kind."""
    changes: list[str] = field(default_factory=list)
    """Global state that the workload's code changed in its process."""


def in_periods(values: Sequence[float], period: int) -> list[float]:
    """The means of ``period`` values in a row, of as many as are whole; of all where there are fewer."""
    if period == 1:
        return list(values)
    starts = range(0, len(values) - period + 1, period)
    return [statistics.fmean(values[at : at + period]) for at in starts] or [statistics.fmean(values)]


def shared_rounds(*sides: Sequence[Launch]) -> list[tuple[Launch, ...]]:
    """The launches of the rounds that all sides have: one tuple per round, in the order of the rounds."""
    by_round = [{launch.round: launch for launch in side} for side in sides]
    rounds = sorted(set[int].intersection(*map(set, by_round)))
    return [tuple(side[number] for side in by_round) for number in rounds]


ENOUGH_LAUNCHES = 6
"""The fewest launches whose range covers the median with 95 % probability: 1 - 2*(1/2)^6 = 96.9 %."""


@dataclass(frozen=True)
class Launch(Interference):
    """One fresh launch of all ranks: the independent sample of every statistic; and what disturbed it."""

    round: int
    """Launches of one round ran after one another."""
    started_at: str
    seconds: dict[str, float]
    """Where this launch's time went on the slowest rank, and ``total_s`` as the parent saw it."""
    ranks: list[RankSamples]
    """One entry per rank."""
    servers: list[ServerCounts] = field(default_factory=list)
    conditions_by_host: list[dict[str, float]] = field(default_factory=list)
    """``conditions`` of each host, where ranks ran on several; ``conditions`` then has only what hosts add up."""
    background_processes_by_host: list[dict[str, float]] = field(default_factory=list)
    """``background_processes`` of each host, where ranks ran on several."""
    collective_times: list[CollectiveTimes] = field(default_factory=list)
    """What ``workload=collectives`` measures; it has no ``ranks``, since it takes no steps."""
    period: int = 1
    """Steps per period: ``local_steps``."""

    def of_hosts(self) -> list[tuple[dict[str, float], dict[str, float]]]:
        """``conditions`` and ``background_processes`` of each host."""
        by_host = list(zip(self.conditions_by_host, self.background_processes_by_host, strict=True))
        return by_host or [(self.conditions, self.background_processes)]

    def step_times_s(self) -> list[float]:
        """Time of each measured step: the slowest rank's, of those that had that many steps."""
        return self._step_times_s

    @functools.cached_property
    def _step_times_s(self) -> list[float]:  # most of analysis asks for it, and a launch never changes
        ranks = [rank.step_times_s() for rank in self.ranks]
        return list(map(max, itertools.zip_longest(*ranks, fillvalue=-math.inf)))

    def training_times_s(self) -> list[float]:
        """The same without the wait for the batch."""
        ranks = [rank.training_times_s() for rank in self.ranks]
        return list(map(max, itertools.zip_longest(*ranks, fillvalue=-math.inf)))

    def condition_per_step(self, name: str) -> float | None:
        """A counter per measured step; None where it was not counted or no step was taken."""
        steps = max((len(rank.losses) for rank in self.ranks), default=0)
        return self.conditions[name] / steps if steps and name in self.conditions else None

    def rank_quartiles_s(self) -> list[float]:
        """The quartiles of a rank's steps without the wait for data (of the means of periods), mean over ranks."""
        periods = [in_periods(rank.training_times_s(), self.period) for rank in self.ranks]
        quartiles = [statistics.quantiles(times * 2, method="inclusive") for times in periods]
        return [statistics.fmean(values) for values in zip(*quartiles, strict=True)]


@dataclass(frozen=True)
class Ceiling:
    """Peak FLOP/s of a rank in matrix products, all ranks of the cell at once: the reference of MFU."""

    flops_per_s: float
    """Of each rank."""
    dtype: str
    size: int
    """Rows and columns of the square matrices."""
    conditions: dict[str, float] = field(default_factory=dict)
    """As of a launch."""
