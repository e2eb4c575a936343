"""A speech recogniser: convolutions that shorten the sequence, then a transformer encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workloads import data
from workloads.base import check_choice
from workloads.supervised import Supervised
from workloads.transformer import TP_PLAN, Block, draw

MELS = 80
"""Log-mel features of a frame."""
STRIDE = 4
"""Frames that the convolutions make one position of."""


@dataclass(frozen=True)
class SpeechSize:
    """The numbers that set a recogniser's shape."""

    layers: int
    heads: int
    width: int
    frames: int
    classes: int


SIZES = {
    "tiny": SpeechSize(layers=2, heads=4, width=64, frames=64, classes=32),
    "base": SpeechSize(layers=12, heads=12, width=768, frames=1000, classes=500),
}


class Speech(Supervised):
    """The class of every four frames of log-mel features; throughput counts frames (10 ms of speech each).

    Cross-entropy frame by frame, as acoustic models and HuBERT are trained: unlike CTC it is deterministic on every
    device and takes equally many operations for each sample. ``size`` is tiny (2 layers of 64, 0.64 s) or base
    (HuBERT-base's 12 layers of 768 and 500 classes, 10 s).
    """

    def __init__(self, *, seed: int, data_dir: str | None, size: str = "tiny") -> None:
        check_choice("speech", "size", size, list(SIZES))
        data.reject_data_dir("speech", data_dir)
        self._size = SIZES[size]
        frames, classes = self._size.frames, self._size.classes
        source = data.utterances(seed, frames=frames, mels=MELS, stride=STRIDE, classes=classes)
        super().__init__("speech", seed, source, unit="frame", units_per_sample=frames)

    def network(self) -> nn.Module:
        return Recogniser(self._size)

    def units(self, module: nn.Module) -> list[nn.Module]:
        """The convolutions, the blocks and the head; positions and the last norm are left to the root."""
        blocks = module.get_submodule("blocks").children()
        return [module.get_submodule("subsampling"), *blocks, module.get_submodule("head")]


class Recogniser(nn.Module):
    """Maps features (n, frames, MELS) to logits (n, frames // STRIDE, classes)."""

    def __init__(self, size: SpeechSize) -> None:
        super().__init__()
        self.subsampling = nn.Sequential(
            nn.Conv1d(MELS, size.width, kernel_size=3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv1d(size.width, size.width, kernel_size=3, stride=2, padding=1),
            nn.GELU(),
        )
        self.positions = nn.Embedding(size.frames // STRIDE, size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.heads, causal=False) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.classes)
        draw(self, size.layers)
        self.tp_plan = TP_PLAN

    def forward(self, features: Tensor) -> Tensor:
        stream = self.subsampling(features.transpose(1, 2)).transpose(1, 2)
        stream = stream + self.positions(torch.arange(stream.shape[1], device=stream.device))
        for block in self.blocks:
            stream = block(stream)
        logits: Tensor = self.head(self.norm(stream))
        return logits
