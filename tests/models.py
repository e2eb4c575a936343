"""Models as people write them: what an engine meets beyond a stack of layers. One workload, chosen by ``kind``."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.models_elsewhere import ELSEWHERE, WIDTH
from tests.models_judged import JUDGED
from tests.models_unsupported import UNSUPPORTED
from workloads.base import Batch, DataInfo, WorkloadInfo, reseeded


class Tied(nn.Module):
    """The last layer's weight is the first one's, in another unit."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH, bias=False)
        self.last.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.middle(torch.tanh(self.first(inputs)))))  # type: ignore[no-any-return]


class Frozen(nn.Module):
    """A frozen layer between trained ones, and a frozen weight with a trained bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.last = nn.Linear(WIDTH, WIDTH)
        self.last.weight.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.frozen(torch.tanh(self.first(inputs)))))  # type: ignore[no-any-return]


class FrozenFirst(nn.Module):
    """Units with a frozen weight and a trained bias, the first of them at the input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        for layer in self.layers:
            layer.weight.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = torch.tanh(layer(inputs))
        return inputs


class Unused(nn.Module):
    """A layer that no forward reaches, and one whose output is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.never = nn.Linear(WIDTH, 5)
        self.discarded = nn.Linear(WIDTH, 3)
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        self.discarded(hidden)
        return self.last(hidden)  # type: ignore[no-any-return]


class Twice(nn.Module):
    """One layer called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        for _ in range(3):
            inputs = torch.tanh(self.again(inputs))
        return self.last(inputs)  # type: ignore[no-any-return]


class OddShapes(nn.Module):
    """Scalars, a vector of 1, a parameter of the root, and fewer elements than ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.shift = nn.Parameter(torch.zeros(1))
        self.first = nn.Linear(WIDTH, 7)
        self.last = nn.Linear(7, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(inputs) * self.scale + self.shift))  # type: ignore[no-any-return]


class Scalar(nn.Module):
    """A single element."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.scale


class MixedTypes(nn.Module):
    """fp64 weights behind fp32 ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH).double()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(inputs)).double())  # type: ignore[no-any-return]


class Double(nn.Module):
    """fp64 throughout, for parity to the last digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, 31), nn.Tanh(), nn.Linear(31, WIDTH)).double()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs.double())  # type: ignore[no-any-return]


class Checkpointed(nn.Module):
    """Activation checkpointing around each unit, and around the last two at once."""

    def __init__(self, width: int = WIDTH, depth: int = 4, *, reentrant: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth))
        self.reentrant = reentrant

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.requires_grad_()
        *blocks, before, last = self.blocks
        for block in blocks:
            inputs = checkpoint(block, inputs, use_reentrant=self.reentrant)
        return checkpoint(lambda x: last(before(x)), inputs, use_reentrant=self.reentrant)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """torch's own attention, which reads its output projection's weights without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, 3, 24, dropout=0.0, batch_first=True)
        self.norm = nn.BatchNorm1d(WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.norm(self.layer(inputs[:, None])[:, 0])  # type: ignore[no-any-return]


class Normalised(nn.Sequential):
    """A chain with batch statistics."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))


class BuiltInHalf(Normalised):
    """A chain with batch statistics, all in bf16 as it is built; some ``in_part`` alone."""

    def __init__(self, in_part: bool = False) -> None:
        super().__init__()
        (self[3] if in_part else self).to(torch.bfloat16)


class Structured(nn.Module):
    """Units that return dictionaries and tuples."""

    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, WIDTH)

        def forward(self, inputs: dict[str, Tensor]) -> dict[str, object]:
            return {"hidden": torch.tanh(self.layer(inputs["hidden"])), "extra": (inputs["hidden"].detach(), None)}

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.ModuleList(self.Unit() for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        state = {"hidden": inputs}
        for unit in self.units:
            state = unit(state)
        return state["hidden"]


MODELS: dict[str, Callable[..., nn.Module]] = {
    "tied": Tied,
    "frozen": Frozen,
    "frozen_first": FrozenFirst,
    "unused": Unused,
    "twice": Twice,
    "odd_shapes": OddShapes,
    "scalar": Scalar,
    "mixed_types": MixedTypes,
    "double": Double,
    "checkpointed": Checkpointed,
    "checkpointed_reentrant": partial(Checkpointed, reentrant=True),
    "attention": Attention,
    "normalised": Normalised,
    "structured": Structured,
}


HALF: dict[str, Callable[..., nn.Module]] = {
    "half": BuiltInHalf,
    "half_in_part": partial(BuiltInHalf, in_part=True),
}
"""Modules that only a bf16 precision trains."""


class Odd:
    """Regression of a fixed target with a module from here or ``tests/models_*``; its units are the children."""

    def __init__(
        self,
        *,
        seed: int,
        data_dir: str | None,
        kind: str,
        input_gradients: bool = False,
        forces: bool = False,
        **sizes: Any,
    ) -> None:
        """``forces``: the loss is also of the gradient by the inputs, as of an energy's by places."""
        self.seed, self.kind, self.input_gradients, self.forces, self.sizes = seed, kind, input_gradients, forces, sizes
        self.info = WorkloadInfo(kind, "sample", 1, DataInfo("noise", synthetic=True, samples=509))
        generator = torch.Generator().manual_seed(seed + 1)
        self.inputs = torch.randn(509, sizes.get("width", WIDTH), generator=generator)

    def build(self) -> nn.Module:
        with reseeded(self.seed):
            module: nn.Module = (MODELS | ELSEWHERE | UNSUPPORTED | HALF | JUDGED)[self.kind](**self.sizes)
        return module

    def units(self, module: nn.Module) -> list[nn.Module]:
        children = list(module.children())
        return [unit for child in children for unit in (child if isinstance(child, nn.ModuleList) else [child])]

    def batch(self, indices: Sequence[int]) -> Batch:
        rows = self.inputs[[index % 509 for index in indices]]
        return rows, rows.roll(1, dims=1) * 0.5

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        if self.forces:
            places = inputs.clone().requires_grad_()
            energy = module(places)
            (force,) = torch.autograd.grad(energy.sum(), places, create_graph=True)
            return (energy - targets).square().mean() + (force - targets).square().mean()
        if not self.input_gradients:
            return (module(inputs) - targets).square().mean()
        inputs = inputs.clone().requires_grad_()
        output = module(inputs)
        loss = (output - targets).square().mean()
        inputs.register_hook(lambda gradient: gradient)
        return loss


class Resident(Odd):
    """Its loss is the MiB of memory that the process has after it freed 100, below a small block that it keeps."""

    def __init__(self, *, seed: int, data_dir: str | None) -> None:
        super().__init__(seed=seed, data_dir=data_dir, kind="scalar")
        self.kept: list[bytearray] = []

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        large = bytearray(b"1") * (100 << 20)
        self.kept.append(bytearray(1000))
        before = resident_mib()
        del large
        return super().loss(module, batch) * 1e-9 + 100 + resident_mib() - before


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)


class Parts(Odd):
    """An encoder and a decoder in a dict of modules, which the loss calls by themselves; its batches are nested."""

    def build(self) -> nn.Module:
        with reseeded(self.seed):
            encoder = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
            return nn.ModuleDict({"encoder": encoder, "decoder": nn.Linear(WIDTH, WIDTH)})

    def batch(self, indices: Sequence[int]) -> Batch:
        rows, targets = super().batch(indices)
        return {"inputs": rows, "more": [(targets, "a name"), {"scale": torch.full((len(rows), 1), 2.0)}]}

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(batch["more"], list) and batch["more"][0][1] == "a name"
        hidden = module["encoder"](batch["inputs"])  # type: ignore[index]
        output = module["decoder"](hidden * batch["more"][1]["scale"])  # type: ignore[index]
        return (output - batch["more"][0][0]).square().mean() + 0.01 * hidden.square().mean()  # type: ignore[no-any-return]


class Late(Odd):
    """Its loss calls the module, and then a part of it that is in no sharding unit."""

    def build(self) -> nn.Module:
        with reseeded(self.seed):
            return LateHead()

    def units(self, module: nn.Module) -> list[nn.Module]:
        return [module.get_submodule("body")]

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        hidden = module(inputs)
        loss: Tensor = (module.head(hidden) - targets).square().mean()  # type: ignore[operator]
        return loss


class LateHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.body(inputs) + self.head.bias)
