"""One configuration at all its world sizes, and what a step of it computes and communicates.

Everything here is read from records; nothing is fitted.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import log
from typing import Any

from analysis.metrics import hosts
from analysis.metrics.scaling import devices, is_oversubscribed, is_ranked
from analysis.metrics.time import step_time_s
from analysis.projection.traffic import NotProjected, collectives_at
from analysis.statistics import medians
from analysis.statistics.medians import Interval
from analysis.text.labels import label
from analysis.theory.calibrated import CalibratedStep
from results.identity import frozen, hardware, identity, settings_of
from results.launches import Collective
from results.record import Record, world_size
from results.training_settings import QUANTIZED

BACKWARD_SHARE = 2 / 3
"""Of forward and backward: backward has two matrix products for each one of forward."""

LEAST_ERROR = 0.003
"""Relative standard error below which a measured step time is not trusted."""

ONE_LAUNCH_ERROR = 0.03
"""The relative standard error that is assumed where one launch leaves no interval."""


@dataclass(frozen=True)
class ScalingCurve:
    """Records that differ in their world size only."""

    label: str
    records: dict[int, Record]
    """By world size, ascending."""
    error: float | None = None
    """Relative standard error of each step time, where its source has it; None: from the launches."""
    calls: dict[int, list[Collective]] = field(default_factory=dict, repr=False, compare=False)
    """Collectives of a step by world size, where its source has them for one that was not measured."""

    @property
    def any(self) -> Record:
        return next(iter(self.records.values()))

    @property
    def sizes(self) -> list[int]:
        return list(self.records)

    @property
    def fabric_key(self) -> tuple[str, ...]:
        """Curves of one key share latency and bandwidth: one engine, on one machine and network."""
        record = self.any
        engine, network = record.config.get("engine") or {}, record.config.get("network")
        return (str(engine.get("name")), hardware(record), frozen(network), self.backend)

    def within(self, largest: int) -> ScalingCurve:
        """The same without the world sizes above ``largest``."""
        smaller = {size: record for size, record in self.records.items() if size <= largest}
        return ScalingCurve(self.label, smaller, self.error, self.calls)

    @cached_property
    def stage(self) -> int:
        return int(self.any.config.get("stage") or 0)

    @cached_property
    def backend(self) -> str:
        return str(self.any.resolved.get("backend"))

    @cached_property
    def has_trees(self) -> bool:
        """Whether an all-reduce may go along a tree: NCCL has trees from version 2.4 on."""
        version = re.match(r"(\d+)\.(\d+)", str(self.any.environment.get("nccl") or ""))
        return self.backend == "nccl" and (version is None or (int(version[1]), int(version[2])) >= (2, 4))

    @cached_property
    def overlap(self) -> bool:
        described = self.any.resolved.get("engine") or {}
        return described.get("overlap", self.any.config.get("overlap")) is not False

    @cached_property
    def micro_batches(self) -> int:
        return int(self.any.resolved.get("accumulate") or 1)

    @cached_property
    def quantized(self) -> tuple[str, ...]:
        """What is communicated as 8-bit numbers: weights, gradients."""
        return QUANTIZED[str(self.any.config.get("quantize") or "none")]

    @cached_property
    def gathers_in_forward(self) -> bool:
        """Whether stage 2 gathers parameters in forward, as fully_shard does, and not after the update."""
        return (self.any.resolved.get("engine") or {}).get("wrapper") == "fully_shard"

    @cached_property
    def sleeps(self) -> bool:
        """Whether layers sleep, so that communication cannot slow them."""
        return (self.any.config.get("workload") or {}).get("name") == "calibrated"

    @cached_property
    def backward_share(self) -> float:
        """Of the time of forward and backward."""
        if not self.sleeps:
            return BACKWARD_SHARE
        layers = CalibratedStep.of(self.any.config)
        return layers.backward_s / (layers.forward_s + layers.backward_s)

    @cached_property
    def update_share(self) -> float:
        """Of the step of a single rank, or at stage 0 of the fewest: their update communicates nothing; else 0."""
        ranks = self.sizes[0]
        if ranks > 1 and self.stage > 0:
            return 0.0
        record = self.records[ranks]
        updates = [statistics.median(rank.optimizer_s) for launch in record.launches for rank in launch.ranks]
        return min(0.9, statistics.median(updates) / self.step_s(ranks).value)

    def step_s(self, ranks: int) -> Interval:
        """Step time in seconds, as measured."""
        return self._step_s[ranks]

    @cached_property
    def _step_s(self) -> dict[int, Interval]:
        return {
            size: medians.median_interval([step_time_s(launch) for launch in record.launches])
            for size, record in self.records.items()
        }

    def relative_error(self, ranks: int) -> float:
        """The standard error of the logarithm of the measured step time."""
        return self._relative_error[ranks]

    @cached_property
    def _relative_error(self) -> dict[int, float]:
        if self.error is not None:
            return dict.fromkeys(self._step_s, self.error)
        return {size: _relative_error(interval) for size, interval in self._step_s.items()}

    def rank_batch(self, ranks: int) -> float:
        """Samples per rank and step."""
        return self.batch / ranks if self.is_strong else float(self.batch)

    @cached_property
    def batch(self) -> int:
        """Samples per step: of all ranks with strong scaling, else per rank."""
        if self.batch_tokens:
            assert self.any.model is not None
            return self.batch_tokens // self.any.model.units_per_sample
        return int(self.any.config.get("batch_size") or 1)

    @cached_property
    def batch_tokens(self) -> int | None:
        """Tokens per step of all ranks, where they are set in place of a batch size."""
        tokens = self.any.config.get("batch_tokens")
        return int(tokens) if tokens else None

    @cached_property
    def is_strong(self) -> bool:
        """Whether all ranks share one batch."""
        return self.any.config.get("scaling") == "strong" or self.batch_tokens is not None

    def units_per_step(self, ranks: int) -> float:
        """Units of work (tokens, images, samples) of all ranks together."""
        assert self.any.model is not None
        return self.rank_batch(ranks) * ranks * self.any.model.units_per_sample

    @cached_property
    def shard_size(self) -> int | None:
        """Ranks of a shard group of hybrid sharding; None where the stage shards over all ranks."""
        size = self.any.config.get("shard_size")
        return int(size) if size else None

    def stride(self, collective: Collective, ranks: int) -> int:
        """How many ranks apart the members of its group are: replicas of hybrid sharding are a shard group apart."""
        shards = self.shard_size or ranks
        replicas = collective.kind == "all_reduce" and 1 < shards < ranks and collective.group_size == ranks // shards
        return shards if replicas else 1

    def collectives(self, ranks: int) -> list[Collective]:
        """Of one step, at any world size. Raises NotProjected."""
        if ranks not in self._collectives:
            self._collectives[ranks] = self._collectives_at(ranks) if ranks > 1 else []
        return self._collectives[ranks]

    def is_known_at(self, sizes: Sequence[int]) -> bool:
        """Whether its collectives can be determined at all of these world sizes."""
        try:
            return all(self.collectives(ranks) is not None for ranks in sizes)
        except NotProjected:
            return False

    @cached_property
    def _collectives(self) -> dict[int, list[Collective]]:
        return dict(self.calls)

    def _collectives_at(self, ranks: int) -> list[Collective]:
        counted = {size: record.collectives for size, record in self.records.items() if size > 1}
        by_size = {size: calls for size, calls in counted.items() if calls is not None}
        if not by_size:
            raise NotProjected("its collectives were not counted; run with measure.collectives=true")
        return collectives_at(by_size, ranks, self.shard_size)

    @cached_property
    def deviations(self) -> list[float]:
        """By what share the steps of a rank that waits for no other exceed their launch's median, ascending.

        From launches without communication, else from a world of one; empty where neither was measured, or one step.
        """
        silent = [
            launch for record in self.records.values() if record.attribution for launch in record.attribution.silent
        ]
        alone = list(self.records[1].launches) if 1 in self.records else []
        shares: list[float] = []
        for launch in silent or alone:
            for rank in launch.ranks:
                times = rank.step_times_s()
                middle = statistics.median(times)
                shares += [time / middle - 1 for time in times] if len(times) > 1 else []
        return sorted(shares)

    @cached_property
    def is_emulated(self) -> bool:
        """Whether each rank has an emulated link of its own."""
        return (self.any.config.get("network") or {}).get("kind") not in (None, "none")

    @cached_property
    def ranks_per_host(self) -> int | None:
        """Ranks that share a host where it is full; None where each rank has a link of its own."""
        if self.is_emulated:
            return None
        used = [hosts.used(record) for record in self.records.values()]
        placed = [int(host.get("ranks") or 0) for entries in used if len(entries) > 1 for host in entries]
        return max(placed) if placed else max(*self.sizes, int(self.host_devices or 0))

    @cached_property
    def spans_hosts(self) -> bool:
        """Whether a measured world size used the network between hosts."""
        return self.ranks_per_host is not None and max(self.sizes) > self.ranks_per_host

    @property
    def host_devices(self) -> float | None:
        """Cores or GPUs of the machine that was measured; None where the record does not say."""
        return devices(self.any)


def _relative_error(interval: Interval) -> float:
    if not interval.low > 0:
        return ONE_LAUNCH_ERROR
    deviations = statistics.NormalDist().inv_cdf((1 + interval.level) / 2)
    return max(LEAST_ERROR, log(interval.high / interval.low) / (2 * deviations))


def curves(records: Sequence[Record]) -> tuple[list[ScalingCurve], list[str]]:
    """The curves of a sweep, and one line per configuration that has no projection, with the reason."""
    groups: dict[object, dict[int, Record]] = defaultdict(dict)
    for record in records:
        if is_ranked(record):
            groups[(identity(settings_of(record), without=["gpus"]), hardware(record))][world_size(record)] = record
    labels = _labels([next(iter(group.values())) for group in groups.values()])
    kept, rejected = [], []
    for name, group in zip(labels, groups.values(), strict=True):
        usable = {size: group[size] for size in sorted(group) if not shares_cores(group[size])}
        curve = ScalingCurve(name, usable or dict(sorted(group.items())))
        if reason := _why_not(curve, oversubscribed=len(group) - len(usable)):
            rejected.append(f"{name}: {reason}")
        else:
            kept.append(curve)
    return kept, rejected


def shares_cores(record: Record) -> bool:
    """Whether ranks compete for cores or GPUs, so that its step time does not predict a larger machine.

    Ranks of ``workload=calibrated`` sleep, and do not compete.
    """
    return is_oversubscribed(record) and (record.config.get("workload") or {}).get("name") != "calibrated"


def _labels(records: Sequence[Record]) -> list[str]:
    """Settings that distinguish each record from the others; an engine's own only where they vary within it."""
    named = [settings_of(record) for record in records]
    names = [name for name in dict.fromkeys(name for one in named for name in one) if name != "gpus"]
    varying = [name for name in names if _varies(name, named)] or ["engine", "stage"]
    return [", ".join(label(name, one.get(name)) for name in varying) for one in named]


def _varies(name: str, named: Sequence[dict[str, Any]]) -> bool:
    owner = name.partition(".")[0] if "." in name else ""
    groups: dict[str, set[str]] = defaultdict(set)
    for one in named:
        groups[frozen(one.get(owner)) if owner in ("engine", "workload") else ""].add(frozen(one.get(name)))
    return any(len(values) > 1 for values in groups.values())


def _why_not(curve: ScalingCurve, oversubscribed: int) -> str:
    """Why a curve cannot be projected; empty if it can."""
    record, network = curve.any, curve.any.config.get("network") or {}
    if len(curve.sizes) < 3:
        sizes = ", ".join(map(str, curve.sizes))
        more = f"; {oversubscribed} more are oversubscribed" if oversubscribed else ""
        return (
            f"a projection that checks itself needs three world sizes, and there are {len(curve.sizes)} ({sizes}{more})"
        )
    if not record.resolved.get("synchronous", True):
        return "ranks that do not synchronize have no step time in common"
    if int(record.resolved.get("ranks_per_replica") or 1) > 1 or record.resolved.get("servers"):
        return "only data parallelism and ZeRO are projected"
    if int(record.config.get("local_steps") or 1) > 1:
        return "local_steps is not projected"
    if record.config.get("secondary_shard_size"):
        return "secondary_shard_size: its gathers among some of the ranks are not projected; valid: null"
    if record.config.get("shard_size") == 0:
        return "shard_size=0: its groups follow the hosts, which is not projected; valid: the number, such as 8"
    if record.config.get("data") == "loader":
        return "data=loader: the wait for data is not projected; run with data=pool"
    if record.config.get("optimizer") == "muon" and curve.stage >= 1:
        return "optimizer=muon at stage >= 1: its update is not divided by the ranks; valid: stage=0, another optimizer"
    if network.get("hosts") is not None:
        return "network.hosts puts more ranks on a host as the world grows; leave it unset, so each rank is a host"
    try:
        curve.collectives(2 * max(curve.sizes))
    except NotProjected as error:
        return str(error)
    return ""
