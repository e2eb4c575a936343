"""Functions and classes of torch that something outside torch has replaced."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import torch


def torch_functions() -> dict[str, Any]:
    """The public functions and classes of torch's main modules, and the methods of its modules, by name."""
    places: tuple[ModuleType, ...] = (
        *(torch, torch.nn, torch.nn.functional, torch.nn.init, torch.optim, torch.autograd, torch.distributed),
    )
    of_modules = {f"{place.__name__}.{name}": value for place in places for name, value in _public(place)}
    classes: list[type] = [
        torch.Tensor,
        torch.optim.Optimizer,
        *{kind for _, kind in _public(torch.nn) if inspect.isclass(kind)},
    ]
    of_classes = {
        f"{kind.__module__}.{kind.__name__}.{name}": value
        for kind in classes
        for name, value in list(vars(kind).items())
        if isinstance(value, FunctionType)
    }
    return of_modules | of_classes


def patched(before: Mapping[str, Any]) -> list[str]:
    """Functions and classes that were replaced by others than torch's own, which torch replaces itself at times."""
    now = torch_functions()
    return sorted(
        name
        for name, value in now.items()
        if value is not before.get(name, value) and not str(getattr(value, "__module__", "")).startswith("torch")
    )


def _public(place: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, value in list(vars(place).items()):
        if not name.startswith("_") and callable(value):
            yield name, value
