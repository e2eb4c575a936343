"""The ceiling of MFU, measured on the spot: what every rank reaches in matrix products, all of them at once.

All ranks multiply between the same two moments, so that those that share a core or a GPU share what it can do, and a
product is repeated for much longer than a scheduler's slice. Matrices double until that gains nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from results.launches import Ceiling
from results.precision import PRECISIONS

if TYPE_CHECKING:
    import torch

FIRST_SIZE = {"cpu": 256, "cuda": 1024}
LARGEST_SIZE = 16384
GAIN = 1.05
"""The least by which a doubled matrix must be faster for another doubling."""
TRIALS = 3
TRIAL_S = 0.03
BUDGET_S = 0.5
"""No larger matrix is begun that would overrun this."""


def measure(precision: str, device: torch.device, *, one_clock: bool = True) -> Ceiling:
    """The best rate of all sizes. Collective: every rank takes the same decisions, and has the same answer.

    ``one_clock``: whether all ranks read the same monotonic clock. If not, a trial lasts as long as the slowest rank's
    own part of it, which leaves out how far apart ranks began.
    """
    return best_of_sizes(precision, device, lambda product, count: product.run(count, one_clock=one_clock))


def measure_own(precision: str, device: torch.device) -> Ceiling:
    """The best rate of all sizes of this rank alone, whatever the others do. Not collective."""
    return best_of_sizes(precision, device, lambda product, count: product.own_s(count))


def best_of_sizes(precision: str, device: torch.device, run: Callable[[Product, int], float]) -> Ceiling:
    """The best rate of all sizes; ``run`` returns the seconds that so many products take."""
    dtype, size, spent_s, in_vain = PRECISIONS[precision].compute, FIRST_SIZE[device.type], 0.0, 0
    best = Ceiling(0.0, dtype, 0)
    while size <= LARGEST_SIZE and in_vain < 2:  # one size may have been disturbed
        product = Product(size, dtype, device)
        run(product, 1)  # which also starts libraries and loads kernels: no part of the budget
        once_s = run(product, 1)
        count = max(1, round(TRIAL_S / once_s))
        trials_s = [run(product, count) for _ in range(TRIALS)]
        rate = 2 * size**3 * count / min(trials_s)
        spent_s += once_s + sum(trials_s)
        in_vain = 0 if rate > GAIN * best.flops_per_s else in_vain + 1
        if rate > best.flops_per_s:
            best = Ceiling(rate, dtype, size)
        if spent_s + (2 + TRIALS) * max(TRIAL_S, 8 * once_s) > BUDGET_S:
            break
        size *= 2
    return best


class Product:
    """A product of two square matrices, ready to be repeated."""

    def __init__(self, size: int, dtype: str, device: torch.device) -> None:
        import torch

        self._left, self._right = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
        self._out = torch.empty_like(self._left)
        self._device = device

    def run(self, count: int, *, one_clock: bool) -> float:
        """Seconds from the first rank's begin to the last one's end of ``count`` products; the same on every rank."""
        import torch
        import torch.distributed as dist

        from bench.measure.time.timing import synchronize, wait_for_all

        synchronize(self._device)
        wait_for_all(self._device)
        begun, ended = self._multiply(count)
        marks = [ended, -begun] if one_clock else [ended - begun, 0.0]
        moments = torch.tensor(marks, dtype=torch.float64, device=self._device)
        dist.all_reduce(moments, dist.ReduceOp.MAX)
        return float(moments.sum())

    def own_s(self, count: int) -> float:
        """Seconds that ``count`` products take on this rank."""
        begun, ended = self._multiply(count)
        return ended - begun

    def _multiply(self, count: int) -> tuple[float, float]:
        """When ``count`` products began and ended, on this rank's clock."""
        import torch

        from bench.measure.time.timing import synchronize

        synchronize(self._device)
        begun = time.perf_counter()
        for _ in range(count):
            torch.mm(self._left, self._right, out=self._out)
        synchronize(self._device)
        return begun, time.perf_counter()
