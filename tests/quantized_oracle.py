"""Ranks of ZeRO in one process, with numbers rounded as quantized collectives round them: plain torch and NumPy.

It shares with the native engine the layout of buckets alone. ``fault`` makes it wrong on purpose: exact (nothing is
rounded), unreduced (one bucket has the first rank's gradients only), lost (the last micro-batch of one bucket), stale
(the last rank computes with the weights of the step before).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.engines.native.bucket import Bucket
from bench.engines.native.layout import Layout
from bench.engines.native.param_group import ParamGroups
from bench.engines.native.policy import POLICIES
from bench.job import CheckJob
from bench.worker.batches import batches, share_of, workload
from bench.worker.single_process import Reference
from results.training_settings import QUANTIZED

BLOCK = 256
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class OneOf:
    """What a layout needs to be told of collectives."""

    world_size: int
    rank: int = 0


def rounded(values: Floats) -> Floats:
    """A shard as it arrives: each block in 255 steps of its largest element."""
    out = np.zeros_like(values)
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        scale = np.abs(block).max() / np.float32(127)
        if scale > 0:
            out[start : start + BLOCK] = np.rint(block / scale) * scale
    return out


class Oracle:
    """Trains the parity steps of a check with SGD in fp32."""

    def __init__(self, job: CheckJob, bucket_mb: float | None, fault: str = "") -> None:
        self.job, self.spec, self.fault = job, job.spec, fault
        self.ranks, self.stage = job.spec.world_size, job.spec.stage
        self.quantized = () if fault == "exact" else QUANTIZED[job.spec.quantize]
        self.work = workload(job.workload)
        self.module = self.work.build()
        self.buckets = self._buckets(bucket_mb)
        self.masters = [nn.Parameter(torch.from_numpy(self._flat(bucket, "data"))) for bucket in self.buckets]
        self.optimizer = torch.optim.SGD(self.masters, lr=self.spec.lr, momentum=0.9)
        self.before = [master.detach().clone() for master in self.masters]

    def train(self) -> Reference:
        initial, losses, first = self._weights(), [], {}
        for step in range(self.job.parity_steps):
            losses.append(self._step(step))
            first = first or self._weights()
        return Reference(losses, initial, first, self._weights())

    def _buckets(self, bucket_mb: float | None) -> list[tuple[Layout, list[str]]]:
        """The layout of each bucket, and the names of its parameters in that order."""
        twin = copy.deepcopy(self.module)
        names = {id(parameter): name for name, parameter in twin.named_parameters()}
        cap = None if bucket_mb is None else bucket_mb * 2**20
        one: object = OneOf(self.ranks)
        groups = ParamGroups(twin, one, POLICIES[self.stage], cap_bytes=cap, master_weights=False)  # type: ignore[arg-type]
        buckets: list[Bucket] = [bucket for group in groups.assign(self.work.units(twin)) for bucket in group.buckets]
        return [(bucket.layout, [names[id(parameter)] for parameter in bucket.parameters]) for bucket in buckets]

    def _flat(self, bucket: tuple[Layout, list[str]], what: str) -> Floats:
        layout, names = bucket
        flat = np.zeros(layout.size, np.float32)
        for slot, name in zip(layout.slots, names, strict=True):
            tensor: Tensor = getattr(self.module.get_parameter(name), what)
            flat[slot.elements] = tensor.detach().numpy().ravel()
        return flat

    def _in_shards(self, layout: Layout, flat: Floats, what: str) -> Floats:
        if what not in self.quantized:
            return flat
        return np.concatenate([rounded(flat[layout.shard(rank)]) for rank in range(self.ranks)])

    def _load(self, weights: list[Tensor]) -> None:
        """The weights that ranks compute with."""
        for (layout, names), master in zip(self.buckets, weights, strict=True):
            flat = self._in_shards(layout, master.detach().numpy(), "weights")
            for slot, name in zip(layout.slots, names, strict=True):
                parameter = self.module.get_parameter(name)
                parameter.data.copy_(torch.from_numpy(flat[slot.elements]).view(parameter.shape))

    def _step(self, step: int) -> float:
        """One update; the mean loss of the global batch."""
        sums, own = self._zeros(), [self._zeros() for _ in range(self.ranks)]
        scale, loss_sum = 1 / (self.ranks * self.spec.accumulate), 0.0
        for micro in range(self.spec.accumulate):
            is_last = micro == self.spec.accumulate - 1
            for rank in range(self.ranks):
                is_stale = self.fault == "stale" and rank == self.ranks - 1
                self._load(self.before if is_stale else list(self.masters))
                self.module.zero_grad()
                batch = batches(self.job, self.work, share_of(self.job, rank), step, torch.device("cpu"))[micro]
                loss = self.work.loss(self.module, batch)
                (loss * scale).backward()
                loss_sum += float(loss.detach()) * scale
                for number, bucket in enumerate(self.buckets):
                    is_lost = self.fault == "lost" and number == 1 and is_last
                    if not is_lost:
                        own[rank][number] += self._flat(bucket, "grad")
            if is_last or self.stage >= 2:
                self._reduce(own, sums)
                own = [self._zeros() for _ in range(self.ranks)]
        self.before = [master.detach().clone() for master in self.masters]
        for master, gradient in zip(self.masters, sums, strict=True):
            master.grad = torch.from_numpy(gradient)
        self.optimizer.step()
        return loss_sum

    def _reduce(self, gradients: list[list[Floats]], sums: list[Floats]) -> None:
        """Adds what each rank has of each bucket to ``sums``."""
        for number, (layout, _) in enumerate(self.buckets):
            total = np.zeros(layout.size, np.float32)
            for rank, own in enumerate(gradients):
                is_unreduced = self.fault == "unreduced" and number == 1 and rank > 0
                if not is_unreduced:
                    total += self._in_shards(layout, own[number], "gradients")
            sums[number] += total

    def _zeros(self) -> list[Floats]:
        """One array per bucket."""
        return [np.zeros(layout.size, np.float32) for layout, _ in self.buckets]

    def _weights(self) -> dict[str, Tensor]:
        """Of the masters, which are trained."""
        weights = {}
        for (layout, names), master in zip(self.buckets, self.masters, strict=True):
            for slot, name in zip(layout.slots, names, strict=True):
                shape = self.module.get_parameter(name).shape
                weights[name] = master.detach()[slot.elements].view(shape).clone()
        return weights
