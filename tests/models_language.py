"""Language models in small, as of other libraries: logits in fp32, a scan over a sequence, and low-rank adapters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.base import Batch, DataInfo, WorkloadInfo, reseeded

VOCABULARY, LENGTH, WIDTH, STATES = 512, 64, 64, 8


class Block(nn.Module):
    """Attention and a feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.ff = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.SiLU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm(x)).chunk(3, -1)
        query, key, value = (part.unflatten(2, (4, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.ff(x)


class Scan(nn.Module):
    """A selective state-space layer that keeps its states of all times, as Mamba without its kernel does."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inside, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.selection, self.rate = nn.Linear(WIDTH, 2 * STATES + 1), nn.Parameter(torch.rand(WIDTH, STATES))

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.inside(self.norm(x)).chunk(2, -1)
        step, into, out = self.selection(value).split([1, STATES, STATES], -1)
        step = F.softplus(step)
        kept = torch.exp(-step.unsqueeze(-1) * self.rate)
        added = (step * value).unsqueeze(-1) * into.unsqueeze(-2)
        states = [torch.zeros_like(added[:, 0])]
        for time in range(x.shape[1]):
            states.append(kept[:, time] * states[-1] + added[:, time])
        return x + self.out((torch.stack(states[1:], 1) * out.unsqueeze(-2)).sum(-1) * F.silu(gate))


class Adapted(nn.Module):
    """A frozen linear layer and a low-rank one in parallel."""

    def __init__(self, layer: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layer(x) + 2 * self.up(self.down(x))
        return output


class LanguageModel(nn.Module):
    """Embedding, blocks, and an output layer that shares the embedding's weight."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.embedding, self.blocks, self.norm = (
            nn.Embedding(VOCABULARY, WIDTH),
            nn.ModuleList(blocks),
            nn.LayerNorm(WIDTH),
        )
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def adapted() -> LanguageModel:
    """All linear layers of the blocks have adapters; nothing else is trained."""
    model = LanguageModel([Block() for _ in range(4)]).requires_grad_(False)
    for part in list(model.blocks.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, nn.Linear):
                part.register_module(name, Adapted(layer))
    return model


def attention() -> LanguageModel:
    return LanguageModel([Block() for _ in range(4)])


def scan() -> LanguageModel:
    return LanguageModel([Scan() for _ in range(2)])


KINDS = {"attention": attention, "scan": scan, "adapted": adapted}


class NextToken:
    """Next-token prediction of random tokens; logits are cast to fp32 and shifted, as transformers' losses do."""

    def __init__(self, *, seed: int, data_dir: str | None, kind: str) -> None:
        self.seed, self.kind = seed, kind
        self.info = WorkloadInfo(kind, "token", LENGTH, DataInfo("noise", synthetic=True, samples=64))
        self.tokens = torch.randint(VOCABULARY, (64, LENGTH), generator=torch.Generator().manual_seed(seed + 1))

    def build(self) -> nn.Module:
        with reseeded(self.seed):
            return KINDS[self.kind]()

    def units(self, module: nn.Module) -> list[nn.Module]:
        return list(module.get_submodule("blocks").children())

    def batch(self, indices: Sequence[int]) -> Batch:
        return (self.tokens[[index % 64 for index in indices]],)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        (tokens,) = batch
        logits = module(tokens).float()
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
