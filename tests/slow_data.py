"""The calibrated workload on data that one of two ranks reads slowly."""

from __future__ import annotations

import time
from collections.abc import Sequence

from workloads.base import Batch
from workloads.calibrated import Calibrated

SLOWER_S = 0.04


class SlowData(Calibrated):
    """Every second share of a global batch, which is rank 1's, takes ``SLOWER_S`` longer to make."""

    def batch(self, indices: Sequence[int]) -> Batch:
        if indices[0] // len(indices) % 2:
            time.sleep(SLOWER_S)
        return super().batch(indices)
