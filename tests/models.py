"""Models as people write them: what an engine meets beyond a stack of layers. One workload, chosen by ``kind``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from workloads.base import Batch, DataInfo, WorkloadInfo, reseeded

WIDTH = 12


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
    """A frozen layer between trained ones, and a frozen weight beside a trained bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.last = nn.Linear(WIDTH, WIDTH)
        self.last.weight.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.frozen(torch.tanh(self.first(inputs)))))  # type: ignore[no-any-return]


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


class Shared(nn.Module):
    """One layer in two units."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(WIDTH, WIDTH)
        self.first = nn.Sequential(nn.Linear(WIDTH, WIDTH), layer, nn.Tanh())
        self.last = nn.Sequential(layer, nn.Linear(WIDTH, WIDTH))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs))  # type: ignore[no-any-return]


class Outside(nn.Module):
    """Weights that are read while their unit is not called: tied by a function, in a call past the hooks, in a penalty,
    by a generator and a function that a unit returned."""

    class Later(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

        def forward(self, inputs: Tensor) -> tuple[Iterator[Tensor], Callable[[Tensor], Tensor]]:
            return (layer(inputs) for layer in self.layers), lambda hidden: self.layers[0](hidden)

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(WIDTH, 20, bias=False)
        self.called = nn.Sequential(nn.Linear(20, WIDTH), nn.Tanh())
        self.later = Outside.Later()

    def forward(self, inputs: Tensor) -> Tensor:
        parts, again = self.later(self.called.forward(self.embedding(inputs)))
        hidden = again(torch.tanh(sum(parts)))
        penalty = sum(weight.square().mean() for weight in self.parameters())
        size = self.embedding.weight.shape[0]
        return F.linear(F.linear(hidden, self.embedding.weight), self.embedding.weight.t()) / size + 0.01 * penalty


class Unreturned(nn.Module):
    """Units whose results reach the loss by an attribute, and in an object of a class of their own."""

    @dataclass
    class Result:
        hidden: Tensor

    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, WIDTH)
            self.gate = nn.Linear(WIDTH, 3)

        def forward(self, given: Unreturned.Result) -> Unreturned.Result:
            self.balance = self.gate(given.hidden).softmax(-1).square().mean()
            return Unreturned.Result(torch.tanh(self.layer(given.hidden)))

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.ModuleList(self.Unit() for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        result = Unreturned.Result(inputs)
        for unit in self.units:
            result = unit(result)
        return result.hidden + torch.stack([unit.balance for unit in self.units]).sum()  # type: ignore[misc]


class Adapted(nn.Sequential):
    """Frozen layers, each with a trained adapter of low rank beside it."""

    class Unit(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.frozen = nn.Linear(width, width).requires_grad_(False)
            self.adapter = nn.Sequential(nn.Linear(width, 2, bias=False), nn.Linear(2, width, bias=False))

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.tanh(self.frozen(inputs) + self.adapter(inputs))

    def __init__(self, width: int = WIDTH, depth: int = 3) -> None:
        super().__init__(*(self.Unit(width) for _ in range(depth)))


class Returned(nn.Module):
    """Units, and a module, that return weights of theirs and views of them."""

    class Latents(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.latents = nn.Parameter(torch.linspace(-1, 1, WIDTH)[None])

        def forward(self, samples: int) -> Tensor:
            return self.latents.expand(samples, -1)

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, WIDTH)
            self.log_variance = nn.Parameter(torch.zeros(()))

        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            return {"mean": self.layer(inputs), "log_variance": self.log_variance}

    def __init__(self) -> None:
        super().__init__()
        self.start = self.Latents()
        self.noisy = self.Noisy()
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.noisy(inputs + self.start(len(inputs)))
        return self.last(torch.tanh(found["mean"])) * torch.exp(found["log_variance"])  # type: ignore[no-any-return]


class Rewritten(nn.Module):
    """Weights that forward bounds, in place and by giving the parameter other memory; and a teacher that follows."""

    class Bounded(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.4)
            return super().forward(inputs)

    class Clamped(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            with torch.no_grad():
                self.weight.clamp_(-0.15, 0.15)
            return super().forward(inputs)

    def __init__(self) -> None:
        super().__init__()
        self.bounded = self.Bounded(WIDTH, WIDTH)
        self.clamped = self.Clamped(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.clamped(torch.tanh(self.bounded(inputs)))  # type: ignore[no-any-return]


class FrozenTwice(nn.Module):
    """A frozen unit called twice in a row, in a region that is computed again."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = checkpoint(lambda x: self.frozen(self.frozen(x)), self.first(inputs), use_reentrant=False)
        return self.last(hidden)  # type: ignore[no-any-return]


class OddBuffers(nn.Module):
    """Buffers of which elements share memory, or skip some, or are 16-bit integers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("expanded", torch.ones(1, 1).expand(WIDTH, WIDTH))
        self.register_buffer("strided", torch.randn(WIDTH, 3 * WIDTH)[:, ::3])
        self.register_buffer("counts", torch.ones(WIDTH, dtype=torch.int16))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs @ self.expanded @ self.strided) * self.counts  # type: ignore


class Captured(nn.Module):
    """A weight taken before other units run, and used after them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        weight = self.first.weight
        return F.linear(self.last(torch.tanh(self.middle(hidden))), weight)


class Reentrant(nn.Module):
    """One layer in two reentrant checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs.requires_grad_()
        for _ in range(2):
            hidden = checkpoint(self.layer, torch.tanh(hidden), use_reentrant=True)
        return self.last(hidden)  # type: ignore[no-any-return]


class Aliased(nn.Module):
    """A buffer that is a view of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("transposed", self.layer.weight.detach().t())

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) @ self.transposed  # type: ignore[no-any-return, operator]


class Skipped(nn.Module):
    """A layer for batches whose second feature is positive: for that of sample 1, and not of sample 0 (seed 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.expert = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        if inputs[0, 1] > 0:
            hidden = self.expert(hidden)
        return self.last(hidden)  # type: ignore[no-any-return]


class Bounded(nn.Module):
    """An embedding that scales its rows in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, WIDTH, max_norm=0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table((inputs[:, 0].abs() * 3).long().clamp(max=9))  # type: ignore[no-any-return]


MODELS: dict[str, Callable[..., nn.Module]] = {
    "tied": Tied,
    "frozen": Frozen,
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
    "shared": Shared,
    "outside": Outside,
    "unreturned": Unreturned,
    "adapted": Adapted,
    "returned": Returned,
    "rewritten": Rewritten,
    "frozen_twice": FrozenTwice,
    "odd_buffers": OddBuffers,
    "captured": Captured,
}
REFUSED: dict[str, Callable[..., nn.Module]] = {
    "bounded": Bounded,
    "skipped": Skipped,
    "reentrant": Reentrant,
    "aliased": Aliased,
    "scripted": lambda: nn.Sequential(torch.jit.script(nn.Linear(WIDTH, WIDTH))),
}


class Odd:
    """Regression of a fixed target with one of MODELS or REFUSED; its units are the children, or those of a list."""

    def __init__(
        self, *, seed: int, data_dir: str | None, kind: str, input_gradients: bool = False, **sizes: int
    ) -> None:
        self.seed, self.kind, self.input_gradients, self.sizes = seed, kind, input_gradients, sizes
        self.info = WorkloadInfo(kind, "sample", 1, DataInfo("noise", synthetic=True, samples=509))
        generator = torch.Generator().manual_seed(seed + 1)
        self.inputs = torch.randn(509, sizes.get("width", WIDTH), generator=generator)

    def build(self) -> nn.Module:
        with reseeded(self.seed):
            module: nn.Module = (MODELS | REFUSED)[self.kind](**self.sizes)
        return module

    def units(self, module: nn.Module) -> list[nn.Module]:
        children = list(module.children())
        return [unit for child in children for unit in (child if isinstance(child, nn.ModuleList) else [child])]

    def batch(self, indices: Sequence[int]) -> Batch:
        rows = self.inputs[[index % 509 for index in indices]]
        return rows, rows.roll(1, dims=1) * 0.5

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        if not self.input_gradients:
            return (module(inputs) - targets).square().mean()
        inputs = inputs.clone().requires_grad_()
        output = module(inputs)
        loss = (output - targets).square().mean()
        inputs.register_hook(lambda gradient: gradient)
        return loss
