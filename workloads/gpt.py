"""A GPT-2 style decoder on token sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads import data
from workloads.base import Batch, WorkloadInfo, check_choice, check_count, reseeded


@dataclass(frozen=True)
class Size:
    """The numbers that set a decoder's shape."""

    layers: int
    heads: int
    width: int
    vocabulary: int = 50257
    context: int = 1024


SIZES = {
    "tiny": Size(layers=2, heads=4, width=64, vocabulary=256, context=64),
    "124M": Size(layers=12, heads=12, width=768),
    "355M": Size(layers=24, heads=16, width=1024),
    "1.5B": Size(layers=48, heads=25, width=1600),
}


class GPT:
    """Next-token prediction; throughput counts tokens.

    ``size`` is tiny (2 layers of 64) or GPT-2's 124M, 355M or 1.5B. ``context`` is the length of sequences and of
    the position table (null: the size's own). ``tie`` makes the head share the token embedding's weight.
    """

    def __init__(
        self, *, seed: int, data_dir: str | None, size: str = "tiny", context: int | None = None, tie: bool = True
    ) -> None:
        check_choice("gpt", "size", size, list(SIZES))
        check_choice("gpt", "tie", tie, (True, False))
        data.refuse_data_dir("gpt", data_dir)
        self._size = SIZES[size]
        if context is not None:
            check_count("gpt", "context", context)
            self._size = replace(self._size, context=context)
        self._seed = seed
        self._tie = tie
        self._source = data.tokens(seed, vocabulary=self._size.vocabulary, length=self._size.context)
        self.info = WorkloadInfo("gpt", unit="token", units_per_sample=self._size.context, data=self._source.info)

    def build(self) -> nn.Module:
        with reseeded(self._seed):
            return Decoder(self._size, self._tie)

    def units(self, module: nn.Module) -> list[nn.Module]:
        """The blocks; embeddings, final norm and head are left to the root, since embedding and head may be tied."""
        return list(module.get_submodule("blocks").children())

    def batch(self, indices: Sequence[int]) -> Batch:
        return self._source.batch(indices)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        tokens, targets = batch
        return F.cross_entropy(module(tokens).float().flatten(0, 1), targets.flatten())


class Decoder(nn.Module):
    """Maps token ids (n, length) to logits (n, length, vocabulary), with GPT-2's initial weights."""

    def __init__(self, size: Size, tie: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.vocabulary, bias=False)
        if tie:
            self.head.weight = self.tokens.weight
        self._draw(size.layers)

    def _draw(self, layers: int) -> None:
        """Normal weights of 0.02, less where the residual stream sums 2 x ``layers`` of them; biases zero."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                residual = name.endswith("project.weight")
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if residual else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        stream = self.tokens(tokens) + self.positions(positions)
        for block in self.blocks:
            stream = block(stream)
        logits: Tensor = self.head(self.norm(stream))
        return logits


class Block(nn.Module):
    """Attention and a feed-forward layer, each on the normalised stream (n, length, width) and added to it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size.width)
        self.attention = Attention(size)
        self.feed_forward_norm = nn.LayerNorm(size.width)
        self.feed_forward = FeedForward(size)

    def forward(self, stream: Tensor) -> Tensor:
        stream = stream + self.attention(self.attention_norm(stream))
        stream = stream + self.feed_forward(self.feed_forward_norm(stream))
        return stream


class Attention(nn.Module):
    """Causal self-attention over (n, length, width)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        # No bias: softmax cancels a key's, so its gradient is rounding noise, which Adam would turn into updates.
        self.query_key_value = nn.Linear(size.width, 3 * size.width, bias=False)
        self.project = nn.Linear(size.width, size.width)

    def forward(self, stream: Tensor) -> Tensor:
        samples, length, width = stream.shape
        joint = self.query_key_value(stream).view(samples, length, 3, self.heads, width // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        projected: Tensor = self.project(mixed.transpose(1, 2).reshape(samples, length, width))
        return projected


class FeedForward(nn.Module):
    """Two linear layers, four times as wide between them, with GELU."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.expand = nn.Linear(size.width, 4 * size.width)
        self.project = nn.Linear(4 * size.width, size.width)

    def forward(self, stream: Tensor) -> Tensor:
        projected: Tensor = self.project(F.gelu(self.expand(stream), approximate="tanh"))
        return projected
