"""A BERT style encoder on token sequences."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from workloads import files
from workloads.base import check_choice, check_count
from workloads.supervised import Supervised
from workloads.transformer import TP_PLAN, Block, Size, draw

MASKED = 0.15
"""Share of the positions of a sample that are masked."""

SIZES = {
    "tiny": Size(layers=2, heads=4, width=64, vocabulary=256, context=64),
    "base": Size(layers=12, heads=12, width=768, vocabulary=30522, context=512),
}


class BERT(Supervised):
    """Prediction of masked tokens; throughput counts all tokens of a sequence, masked or not.

    15 % of the positions, equally many in each sample, hold the mask token, and the loss is the mean over them.
    Which ones is drawn once from the seed, so that it belongs to the sample. ``size`` is tiny (2 layers of 64) or
    base (BERT-base). ``sequence_length`` is the length of sequences and of the position table (null: the size's own).
    ``tie`` makes the head share the token embedding's weight.
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
        check_choice("bert", "size", size, list(SIZES))
        check_choice("bert", "tie", tie, (True, False))
        self._size = SIZES[size]
        if sequence_length is not None:
            check_count("bert", "sequence_length", sequence_length)
            self._size = replace(self._size, context=sequence_length)
        self._tie = tie
        length = self._size.context
        masked = max(1, round(MASKED * length))
        source = files.masked_tokens(seed, data_dir, vocabulary=self._size.vocabulary, length=length, masked=masked)
        super().__init__("bert", seed, source, unit="token", units_per_sample=length)

    def network(self) -> nn.Module:
        return Encoder(self._size, self._tie)

    def units(self, module: nn.Module) -> list[nn.Module]:
        """The blocks; embeddings, norm and head are left to the root, since embedding and head may be tied."""
        return list(module.get_submodule("blocks").children())


class Encoder(nn.Module):
    """Maps token ids (n, length) and positions (n, masked) to logits (n, masked, vocabulary) at these positions.

    BERT with its masked-language-model head, but with the norms before the layers, as in GPT-2, instead of behind
    them, no biases of queries, keys and values, and no segment embedding: a sample is one segment.
    """

    def __init__(self, size: Size, tie: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.heads, causal=False) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.transform = nn.Sequential(nn.Linear(size.width, size.width), nn.GELU(), nn.LayerNorm(size.width))
        self.head = nn.Linear(size.width, size.vocabulary)
        if tie:
            self.head.weight = self.tokens.weight
        draw(self, size.layers)
        self.tp_plan = TP_PLAN

    def forward(self, tokens: Tensor, masked: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        stream = self.tokens(tokens) + self.positions(positions)
        for block in self.blocks:
            stream = block(stream)
        predicted = stream.gather(1, masked[:, :, None].expand(-1, -1, stream.shape[2]))
        logits: Tensor = self.head(self.transform(self.norm(predicted)))
        return logits
