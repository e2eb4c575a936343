"""Engine ``fabric``: its strategies keep and send what engine ``torch`` does at the same stage."""

from __future__ import annotations

from dataclasses import replace

from analysis.theory import torch_engine

THEORY = replace(torch_engine.THEORY, exact_peak=())
