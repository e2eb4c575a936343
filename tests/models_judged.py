"""Models on which parity is hard to judge: noisy ones, and such as draw random numbers."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.models_elsewhere import WIDTH


class Residual(nn.Module):
    """Convolutions with BatchNorm around shortcuts: a ResNet in small."""

    class Block(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv1d(channels, channels, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm1d(channels)
            self.conv2 = nn.Conv1d(channels, channels, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm1d(channels)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = torch.relu(self.bn1(self.conv1(inputs)))
            return torch.relu(self.bn2(self.conv2(hidden)) + inputs)

    def __init__(self, channels: int = 16, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, channels, 3, padding=1)
        self.blocks = nn.ModuleList(self.Block(channels) for _ in range(depth))
        self.head = nn.Linear(channels, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.stem(inputs[:, None])
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden.mean(2))  # type: ignore[no-any-return]


class BiasBeforeNorm(nn.Sequential):
    """A bias that BatchNorm takes out again: its true gradient is zero."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))


class Random(nn.Module):
    """Draws random numbers in forward: dropout, attention's dropout, noise, or whether a layer is left out."""

    def __init__(self, draws: str) -> None:
        super().__init__()
        self.draws = draws
        self.first, self.middle, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.own = torch.Generator().manual_seed(5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.drawn(torch.tanh(self.first(inputs)))
        if self.draws != "layer_drop" or random.random() < 0.5:
            hidden = torch.tanh(self.middle(hidden)) + 0 * hidden
        else:
            hidden = hidden + 0 * self.middle(hidden)
        return self.last(hidden)  # type: ignore[no-any-return]

    def drawn(self, hidden: Tensor) -> Tensor:
        if self.draws == "dropout":
            return F.dropout(hidden, 0.3)
        if self.draws == "attention":
            heads = hidden.view(-1, 1, 3, WIDTH // 3)
            return F.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.3).flatten(1)
        if self.draws == "noise":
            return hidden + 0.3 * torch.randn_like(hidden)
        if self.draws == "recomputed":
            return checkpoint(  # type: ignore[no-any-return]
                lambda x: F.dropout(torch.tanh(x), 0.3), hidden, use_reentrant=False, preserve_rng_state=False
            )
        if self.draws == "own_generator":
            return hidden + 0.3 * torch.randn(hidden.shape, generator=self.own)
        return hidden * float(numpy.random.rand()) if self.draws == "numpy" else hidden


class Diverging(nn.Module):
    """A loss that is not a number from the second step on."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * (self.scale - 1).sqrt() if bool((self.scale != 1).any()) else inputs * self.scale


class Unseeded(nn.Module):
    """Draws on what no seed governs: two equal runs differ."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) * (1 + int.from_bytes(os.urandom(1)) / 255)  # type: ignore[no-any-return]


JUDGED: dict[str, Callable[..., nn.Module]] = {
    "residual": Residual,
    "bias_before_norm": BiasBeforeNorm,
    "random": Random,
    "diverging": Diverging,
    "unseeded": Unseeded,
}
