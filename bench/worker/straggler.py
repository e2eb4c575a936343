"""One slow rank, on purpose: its forward and backward take ``factor`` times as long as its bare computation does.

The rank first times forward and backward of a copy of the module, alone and without an engine. From then on its loss
function waits (factor - 1) times that long after each forward, so that whatever the engine communicates in backward
comes late, as it would from a slower device.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from bench.engines.base import Batch, LossFunction
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype
from bench.measure.time.timeline import COMPUTED
from bench.measure.time.timing import synchronize

TRIALS = 3


def compute_s(
    module: nn.Module,
    batch: Batch,
    loss_fn: LossFunction,
    precision: str,
    device: torch.device,
    prepare: Callable[[nn.Module], None] = lambda module: None,
) -> float:
    """Seconds of one forward and backward of a copy of ``module``: the least of a few trials after one to warm up.

    ``prepare`` changes the copy as the engine changes the module (activation checkpointing).
    """
    copied = cast_module(copy.deepcopy(module), precision)
    prepare(copied)
    batch = cast_inputs(batch, weight_dtype(precision))
    seconds = []
    for _ in range(1 + TRIALS):
        started = time.perf_counter()
        with autocast(precision, device.type):
            loss = loss_fn(copied, batch)
        loss.backward()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
        copied.zero_grad()
    return min(seconds[1:])


def slowed(loss_fn: LossFunction, extra_s: float, device: torch.device) -> LossFunction:
    """``loss_fn``, ``extra_s`` seconds later."""

    def late(module: nn.Module, batch: Batch) -> Tensor:
        loss = loss_fn(module, batch)
        synchronize(device)
        with record_function(COMPUTED + "straggler"):
            time.sleep(extra_s)
        return loss

    return late
