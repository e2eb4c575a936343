"""Layers that take a set time in forward and in backward, so that the time of a step is known beforehand.

On a CPU a layer sleeps, so that more ranks than cores take the time that they would with a core each. On a GPU one
thread of the device spins, on the stream that computes. Weights, gradients and their communication are real.
docs/explanation/known_answers.md has what follows from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from workloads import data
from workloads.base import Batch, WorkloadError, check_count
from workloads.supervised import Regression

WIDTH = 16
"""Of the vectors between layers, and of a weight's rows."""
ROW_BYTES = 4 * WIDTH
SPINS = 7
"""Trial spins by which a GPU's cycles are measured; the median counts."""
PER = ("micro_batch", "sample")
CYCLES = 10_000_000
"""Of each trial: 5 to 10 ms."""


class Calibrated(Regression):
    """``layers`` equal ones, each of a weight of ``parameters_mib``; mean squared error on vectors.

    ``forward_s`` and ``backward_s`` are a layer's, ``per`` ``micro_batch`` of any size or ``sample``. A weight has
    whole rows of 64 bytes in fp32, so ``parameters_mib`` is rounded to them. Reading a sample takes ``read_s``.
    """

    times_reading = True
    """Whether a DataLoader can be measured without files."""

    def __init__(
        self,
        *,
        seed: int,
        data_dir: str | None,
        layers: int = 4,
        forward_s: float = 0.005,
        backward_s: float = 0.01,
        per: str = "micro_batch",
        parameters_mib: float = 0.25,
        read_s: float = 0.0,
    ) -> None:
        check_count("calibrated", "layers", layers)
        check_number("forward_s", forward_s, "a number of seconds of at least 0", least=0.0)
        check_number("backward_s", backward_s, "a number of seconds of at least 0", least=0.0)
        check_number("read_s", read_s, "a number of seconds of at least 0", least=0.0)
        check_number("parameters_mib", parameters_mib, "a number of at least 0.0001", least=1e-4)
        if per not in PER:
            raise WorkloadError(f"calibrated: per={per!r} is not valid; valid: {', '.join(PER)}")
        data.reject_data_dir("calibrated", data_dir)
        self._layers = layers
        self._forward_s = float(forward_s)
        self._backward_s = float(backward_s)
        self._per_sample = per == "sample"
        self._read_s = float(read_s)
        self._rows = round(parameters_mib * 2**20 / ROW_BYTES)
        super().__init__("calibrated", seed, data.vectors(seed, width=WIDTH))

    def batch(self, indices: Sequence[int]) -> Batch:
        time.sleep(self._read_s * len(indices))
        return super().batch(indices)

    def network(self) -> nn.Module:
        times = (self._forward_s, self._backward_s, self._per_sample)
        return nn.Sequential(*(Timed(self._rows, *times) for _ in range(self._layers)))


def check_number(option: str, value: object, valid: str, *, least: float) -> None:
    """Rejects an option's value that is not a finite number of at least ``least``."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < least:  # type: ignore[arg-type,operator]
        raise WorkloadError(f"calibrated: {option}={value!r} is not valid; valid: {valid}")


class Timed(nn.Module):
    """Multiplies column j of vectors (n, WIDTH) by the mean square of column j of its weight, in a set time."""

    def __init__(self, rows: int, forward_s: float, backward_s: float, per_sample: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, WIDTH))
        self.forward_s = forward_s
        self.backward_s = backward_s
        self.per_sample = per_sample

    @torch.compiler.disable(reason="a graph would drop what takes the time, which computes nothing")  # type: ignore[untyped-decorator]
    def forward(self, inputs: Tensor) -> Tensor:
        times = len(inputs) if self.per_sample else 1
        outputs: Tensor = _Timed.apply(inputs, self.weight, times * self.forward_s, times * self.backward_s)
        return outputs


class _Timed(torch.autograd.Function):
    """One node, so that in backward the weight's gradient is ready after the set time and never before."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, forward_s: float, backward_s: float) -> Tensor:
        with record_function("calibrated.forward"):
            take(forward_s, inputs.device)
            ctx.save_for_backward(inputs, weight)
            ctx.backward_s = backward_s
            return inputs * weight.square().mean(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        (gradient,) = gradients
        with record_function("calibrated.backward"):
            take(ctx.backward_s, gradient.device)
            inputs, weight = ctx.saved_tensors
            to_inputs = gradient * weight.square().mean(0) if ctx.needs_input_grad[0] else None
            to_scale = (gradient * inputs).sum(0)
            return to_inputs, weight * (to_scale * (2 / len(weight))), None, None


def take(seconds: float, device: torch.device) -> None:
    """Lets ``seconds`` pass: on a GPU, for what is enqueued after it."""
    if seconds and device.type == "cuda":
        torch.cuda._sleep(round(seconds * cycles_per_s(device)))
    elif seconds and device.type == "cpu":
        time.sleep(seconds)


@cache
def cycles_per_s(device: torch.device) -> float:
    """Cycles of a GPU's clock in a second, against events. Waits for the device; once per process."""
    rates: list[float] = []
    for _ in range(1 + SPINS):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        torch.cuda._sleep(CYCLES)
        after.record()
        after.synchronize()
        rates.append(CYCLES / (before.elapsed_time(after) / 1000))
    return sorted(rates[1:])[SPINS // 2]
