"""A GPT-2 style decoder on token sequences."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from workloads import files
from workloads.base import check_choice, check_count
from workloads.supervised import Supervised
from workloads.transformer import TP_PLAN, Block, Size, draw

VOCABULARY = 50257
CONTEXT = 1024

SIZES = {
    "tiny": Size(layers=2, heads=4, width=64, vocabulary=256, context=64),
    "124M": Size(layers=12, heads=12, width=768, vocabulary=VOCABULARY, context=CONTEXT),
    "355M": Size(layers=24, heads=16, width=1024, vocabulary=VOCABULARY, context=CONTEXT),
    "1.5B": Size(layers=48, heads=25, width=1600, vocabulary=VOCABULARY, context=CONTEXT),
}


class GPT(Supervised):
    """Next-token prediction; throughput counts tokens.

    ``size`` is tiny (2 layers of 64) or GPT-2's 124M, 355M or 1.5B. ``sequence_length`` is the length of
    sequences and of the position table (null: the size's own). ``tie`` makes the head share the token embedding's
    weight. Tokens are those of ``data_dir/train.bin`` where that is set, else synthetic.
    """

    def __init__(
        self,
        *,
        seed: int,
        data_dir: str | None,
        size: str = "tiny",
        sequence_length: int | None = None,
        tie: bool = True,
    ) -> None:
        check_choice("gpt", "size", size, list(SIZES))
        check_choice("gpt", "tie", tie, (True, False))
        self._size = SIZES[size]
        if sequence_length is not None:
            check_count("gpt", "sequence_length", sequence_length)
            self._size = replace(self._size, context=sequence_length)
        self._tie = tie
        source = files.tokens(seed, data_dir, vocabulary=self._size.vocabulary, length=self._size.context)
        super().__init__("gpt", seed, source, unit="token", units_per_sample=self._size.context)

    def network(self) -> nn.Module:
        return Decoder(self._size, self._tie)

    def units(self, module: nn.Module) -> list[nn.Module]:
        """The blocks; embeddings, final norm and head are left to the root, since embedding and head may be tied."""
        return list(module.get_submodule("blocks").children())


class Decoder(nn.Module):
    """Maps token ids (n, length) to logits (n, length, vocabulary), with GPT-2's initial weights."""

    def __init__(self, size: Size, tie: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.heads, causal=True) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.vocabulary, bias=False)
        if tie:
            self.head.weight = self.tokens.weight
        draw(self, size.layers)
        self.tp_plan = TP_PLAN
        # A plain list: the parts are this module's own and keep their names.
        self.pipeline_plan = [Embed(self.tokens, self.positions), *self.blocks, Predict(self.norm, self.head)]

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        stream = self.tokens(tokens) + self.positions(positions)
        for block in self.blocks:
            stream = block(stream)
        logits: Tensor = self.head(self.norm(stream))
        return logits


class Embed(nn.Module):
    """Layers before the blocks, of a pipeline's first stage."""

    def __init__(self, tokens: nn.Embedding, positions: nn.Embedding) -> None:
        super().__init__()
        self.tokens = tokens
        self.positions = positions

    def forward(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return embedded


class Predict(nn.Module):
    """Layers after the blocks, of a pipeline's last stage."""

    def __init__(self, norm: nn.LayerNorm, head: nn.Linear) -> None:
        super().__init__()
        self.norm = norm
        self.head = head

    def forward(self, stream: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(stream))
        return logits
