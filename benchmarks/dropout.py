"""A model with dropout: the one whose steps draw random numbers."""

from __future__ import annotations

from torch import nn


class Dropout(nn.Sequential):
    """Two layers with dropout between them."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))
