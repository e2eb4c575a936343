"""Modules that come by their weights otherwise than by a call of their unit, and such as cannot be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDTH = 12


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
    """Frozen layers, each with a trained adapter of low rank."""

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
        parts = self.noisy(inputs + self.start(len(inputs)))
        return self.last(torch.tanh(parts["mean"])) * torch.exp(parts["log_variance"])  # type: ignore[no-any-return]


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


class Strided(nn.Module):
    """A convolution in channels_last and a transposed weight, trained and frozen; forward checks that they are."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
        self.frozen = nn.Linear(4, 8, bias=False)
        self.last = nn.Linear(8, WIDTH)
        for layer in (self.frozen, self.last):
            layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
        self.frozen.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        assert self.convolution.weight.stride() == (12, 1, 6, 3)
        assert self.frozen.weight.stride() == (1, 8) and self.last.weight.stride() == (1, WIDTH)
        hidden = self.convolution(inputs.view(-1, 3, 2, 2)).flatten(1)
        return self.last(torch.tanh(self.frozen(hidden)))  # type: ignore[no-any-return]


class Empty(nn.Module):
    """Parameters without elements, one of them in a unit of its own."""

    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nothing = nn.Parameter(torch.zeros(3, 0))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs + self.nothing.sum()

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(0))
        self.first, self.middle, self.last = nn.Linear(WIDTH, WIDTH), self.Nothing(), nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.middle(torch.tanh(self.first(inputs)))) + self.nothing.sum()  # type: ignore[no-any-return]


class Complex(nn.Module):
    """A matrix of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.spectrum = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=torch.complex64) * 0.1)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs)).to(torch.complex64) @ self.spectrum
        return self.last(hidden.real)  # type: ignore[no-any-return]


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


class SlicedFrozen(nn.Sequential):
    """A frozen layer that tensor parallelism slices."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, WIDTH).requires_grad_(False), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.tp_plan = {"0": "colwise", "2": "rowwise"}


class SlicedScaled(SlicedFrozen):
    """And a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))


class Sparse(nn.Module):
    """An embedding whose gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, WIDTH, sparse=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table((inputs[:, 0].abs() * 3).long().clamp(max=9))  # type: ignore[no-any-return]


class HalfFrozen(nn.Sequential):
    """A chain of which only the end is trained."""

    def __init__(self) -> None:
        frozen = (nn.Linear(WIDTH, WIDTH).requires_grad_(False) for _ in range(2))
        super().__init__(*frozen, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))


ELSEWHERE: dict[str, Callable[..., nn.Module]] = {
    "shared": Shared,
    "outside": Outside,
    "unreturned": Unreturned,
    "adapted": Adapted,
    "returned": Returned,
    "rewritten": Rewritten,
    "frozen_twice": FrozenTwice,
    "odd_buffers": OddBuffers,
    "captured": Captured,
    "strided": Strided,
    "empty": Empty,
    "sliced_frozen": SlicedFrozen,
    "half_frozen": HalfFrozen,
}
