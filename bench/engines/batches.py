"""Batches: tensors, alone or in tuples, lists, dicts and dataclasses, nested as their workload likes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def map_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The batch with each tensor replaced by ``change`` of it; what is no tensor stays as it is."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, tuple | list):
        entries = [map_tensors(entry, change) for entry in batch]
        return type(batch)(*entries) if hasattr(batch, "_fields") else type(batch)(entries)
    if isinstance(batch, Mapping):
        return type(batch)({key: map_tensors(entry, change) for key, entry in batch.items()})  # type: ignore[call-arg]
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch) if field.init}
        return dataclasses.replace(batch, **{name: map_tensors(entry, change) for name, entry in fields.items()})
    return batch


def tensors_of(batch: Any) -> list[Tensor]:
    """The tensors of a batch, in order."""
    tensors: list[Tensor] = []

    def take(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(batch, take)
    return tensors
