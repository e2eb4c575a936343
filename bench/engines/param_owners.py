"""The sharding units that own a parameter."""

from __future__ import annotations

from torch import nn

ROOT = -1
"""The place of what is in no unit."""


def holders(module: nn.Module, units: list[nn.Module]) -> dict[int, set[int]]:
    """Places in ``units`` that hold each parameter, by its id: several for tied weights, or a module in two units."""
    inside = [{id(part) for part in unit.modules()} for unit in units]
    places_by_id: dict[int, set[int]] = {}
    for part in module.modules():
        places = {place for place, parts in enumerate(inside) if id(part) in parts} or {ROOT}
        for parameter in part._parameters.values():
            places_by_id.setdefault(id(parameter), set()).update(places)
    return places_by_id
