"""Native's step, then what the options add to it: a wait, a collective, a buffer."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist
from torch import nn

from bench.engines.base import Engine, RankContext
from bench.engines.native.adapter import NativeDescription, NativeEngine
from bench.engines.spec import EngineSpec


class InjectedDescription(NativeDescription, total=False):
    """Entries of this engine alone."""

    injected: bool


class InjectedEngine(NativeEngine):
    """Options: ``delay_s`` of spinning, an all-reduce of ``collective_elements``, a copy of ``buffer_elements``."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        super().setup(module, units, spec, context)
        self.delay_s: float = spec.options["delay_s"]
        self.sent = torch.zeros(spec.options["collective_elements"], device=context.device)
        self.kept = torch.zeros(spec.options["buffer_elements"], device=context.device)

    def optimizer_step(self) -> None:
        super().optimizer_step()
        if self.sent.numel():
            dist.all_reduce(self.sent)
        if self.kept.numel():
            self.kept = self.kept.clone()
        spin(self.delay_s)

    def describe(self) -> InjectedDescription:
        return {**super().describe(), "injected": True}


def spin(seconds: float) -> None:
    """Keeps the core busy: a sleep may be late by more than the delays that are injected."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def create() -> Engine:
    return InjectedEngine()
