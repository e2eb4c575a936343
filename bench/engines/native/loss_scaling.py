"""Factors on the loss and on gradients: the mean over ranks and micro-batches, and dynamic loss scaling."""

from __future__ import annotations

from bench.engines.precision import AUTOCAST
from bench.engines.scaling import LossScaling
from bench.engines.spec import EngineSpec
from results.precision import PRECISIONS

GROWTH_INTERVAL = 2000
"""Consecutive finite steps after which the loss scale is doubled, as in torch's GradScaler."""


class LossScale:
    """Dynamic loss scaling (Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.2)."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.value = 2.0**16 if enabled else 1.0
        self.good_steps = 0

    def update(self, *, skipped: bool) -> None:
        if not self.enabled:
            return
        self.good_steps = 0 if skipped else self.good_steps + 1
        if skipped:
            self.value /= 2
        elif self.good_steps == GROWTH_INTERVAL:
            self.value, self.good_steps = self.value * 2, 0

    def read(self) -> LossScaling | None:
        return LossScaling(self.value, self.good_steps, GROWTH_INTERVAL) if self.enabled else None


def loss_divisor(spec: EngineSpec) -> int:
    """The part of the mean over ranks and micro-batches that the loss is divided by, which costs nothing.

    In fp32 it is all of the mean; in bfloat16 autocast too if it is a power of two: no number is rounded or leaves the
    range. With loss scaling, a smaller loss overflows at another step. So there it is ``accumulate`` alone, as in
    PyTorch's recipe, and updates are skipped where DistributedDataParallel skips them.
    """
    mean = spec.world_size * spec.accumulate
    if PRECISIONS[spec.precision].loss_scaling:
        return spec.accumulate
    exact = spec.precision in AUTOCAST and mean & (mean - 1) == 0
    return mean if exact or spec.precision == "fp32" else 1


def gradient_divisor(spec: EngineSpec) -> int:
    """The rest of the mean, by which summed gradients are divided before the update."""
    return spec.world_size * spec.accumulate // loss_divisor(spec)
