"""Engine ``accelerate``: DistributedDataParallel keeps and sends what it does in engine ``torch`` at stage 0."""

from __future__ import annotations

from dataclasses import replace

from analysis.theory import torch_engine

THEORY = replace(torch_engine.THEORY, exact_peak=())
