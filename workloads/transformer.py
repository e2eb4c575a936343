"""Transformer blocks, as gpt, bert and speech stack them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

TP_PLAN = {"*.feed_forward.expand": "colwise", "*.feed_forward.project": "rowwise"}
"""How blocks are sliced for tensor parallelism. Attention stays whole: a slice of its joint query, key and value
would not be a set of heads."""


@dataclass(frozen=True)
class Size:
    """The numbers that set the shape of a model of tokens."""

    layers: int
    heads: int
    width: int
    vocabulary: int
    context: int


class Block(nn.Module):
    """Attention and a feed-forward layer, each on the normalised stream (n, length, width) and added to it."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, stream: Tensor) -> Tensor:
        stream = stream + self.attention(self.attention_norm(stream))
        stream = stream + self.feed_forward(self.feed_forward_norm(stream))
        return stream


class Attention(nn.Module):
    """Self-attention over (n, length, width); ``causal``: a position does not see later ones."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        # No bias: softmax cancels a key's, so its gradient is rounding noise, which Adam would turn into updates.
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, stream: Tensor) -> Tensor:
        samples, length, width = stream.shape
        joint = self.query_key_value(stream).view(samples, length, 3, self.heads, width // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        projected: Tensor = self.project(mixed.transpose(1, 2).reshape(samples, length, width))
        return projected


class FeedForward(nn.Module):
    """Two linear layers, four times as wide between them, with GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)

    def forward(self, stream: Tensor) -> Tensor:
        projected: Tensor = self.project(F.gelu(self.expand(stream), approximate="tanh"))
        return projected


def draw(module: nn.Module, layers: int) -> None:
    """GPT-2's initial weights for a stack of ``layers`` blocks and what stands around it; biases are zero.

    Matrices are normal of 0.02, less where the residual stream sums 2 x ``layers`` of them.
    """
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 2:
            residual = name.endswith("project.weight")
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if residual else 0.02)
