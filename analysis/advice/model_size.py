"""The largest model that fits a given memory: the measured cell with more, or larger, layers of the same kind.

A rank's memory is model state, by the engine's formula, and the rest, as measured at the peak. The rest grows in a
way that is not measured, so there are two bounds (docs/explanation/memory.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from analysis.metrics.memory import PARTS, Memory, memory
from analysis.theory import Theory, host_bytes_counted, theory_of
from analysis.theory.setting import Setting, elements
from analysis.theory.setting import setting as setting_of
from results.model import Parameter
from results.record import Record

WORKING = (*PARTS["gathered"], *PARTS["communication"])
FARTHEST = 100
"""Times the measured model beyond which no bound is given: activations were measured for one size only."""
MOST_TENSORS = 4000
"""Formulas are evaluated for a model of as many tensors, and continued in a straight line from there."""


@dataclass(frozen=True)
class Additional:
    """Bytes in addition to model state on the rank with the largest peak."""

    working: float
    """Gathered parameters, gradients not yet reduced and buffers, as far as they exceed what is predicted."""
    activations: float
    """Activations, the batch and temporaries."""
    fixed: float
    """Non-PyTorch memory, independent of the model; 0 where it was not measured."""


@dataclass(frozen=True)
class Fits:
    """The largest model of a cell's kind within a memory; None: not even the measured one fits."""

    bytes_per_parameter: float
    """Of model state, in a model of many such layers."""
    parameters: int
    """Of the measured model."""
    least: int | None
    """Parameters, if activations grow with the model in proportion, and every tensor is larger."""
    most: int | None
    """Parameters, if activations stay as measured, and there are more layers of the measured size."""

    @property
    def reach(self) -> float:
        """The larger bound over the measured model; 0 where not even that fits."""
        return max(self.least or 0, self.most or 0) / self.parameters


def fits(record: Record, memory_bytes: float) -> Fits | None:
    """The largest model that fits ``memory_bytes`` with the cell's engine, stage, ranks, precision and optimizer.

    None where peak memory was not measured, the engine has no formula, or the batch is what a search filled memory
    with.
    """
    setting, cell_memory = setting_of(record), memory(record)
    theory = theory_of(setting) if setting else None
    unfit = cell_memory.counted_predicted_bytes is None or cell_memory.peak_bytes is None
    unfit = unfit or not cell_memory.predicted_bytes
    if setting is None or theory is None or unfit or record.search is not None or record.status != "ok":
        return None
    additional = _additional(record, cell_memory)
    room = memory_bytes - additional.fixed
    count = elements(setting.parameters)

    def wider(times: int) -> float:
        grown = _wider(setting, times)
        return _state(theory, grown) + _working(theory, grown) + times * (additional.working + additional.activations)

    def deeper(times: int) -> float:
        grown = _deeper(setting, times)
        casts = _cast(grown) - _cast(setting)  # counted as activations, but copies of the weights
        return _state(theory, grown) + _working(theory, grown) + casts + additional.working + additional.activations

    layered = _deeper(setting, _most_copies(setting))
    wide, deep = _most_times(wider, room, 1 << 20), _most_times(deeper, room, _most_copies(setting))
    root = _root(setting)
    return Fits(
        bytes_per_parameter=_state(theory, layered) / elements(layered.parameters),
        parameters=count,
        least=None if wide is None else int(wide * count),
        most=None if deep is None else int(root + deep * (count - root)),
    )


def _additional(record: Record, cell_memory: Memory) -> Additional:
    """Memory at the peak in addition to model state, on the rank with the largest peak."""
    fullest = cell_memory.fullest
    assert fullest is not None
    kinds, predicted = fullest.peak_by_kind, cell_memory.working_bytes or 0
    fixed = fullest.beyond_allocator_bytes or 0
    if not kinds:  # the peak was not taken apart
        return Additional(0, max(0, fullest.peak_bytes - cell_memory.counted_bytes(fullest) - predicted), fixed)
    working = sum(kinds.get(kind, 0) for kind in WORKING)
    state = sum(kinds.get(kind, 0) for kind in PARTS["state"])
    return Additional(max(0, working - predicted), max(0, fullest.peak_bytes - state - working), fixed)


def _state(theory: Theory, setting: Setting) -> int:
    bytes_by_kind, in_host = theory.state(setting), host_bytes_counted(setting, theory)
    assert bytes_by_kind is not None and in_host is not None
    return sum(bytes_by_kind.values()) + in_host


def _working(theory: Theory, setting: Setting) -> int:
    """Predicted bytes in addition to state and activations."""
    return theory.transient(setting) - _cast(setting)


def _cast(setting: Setting) -> int:
    """Autocast's copies of the weights, which a transient prediction counts in."""
    return 2 * elements(setting.parameters) if setting.precision.startswith("amp_") else 0


def _wider(setting: Setting, times: int) -> Setting:
    """Every tensor ``times`` as large."""
    grown = [
        replace(each, shape=[times * size if at == 0 else size for at, size in enumerate(each.shape or [1])])
        for each in setting.parameters
    ]
    return replace(setting, parameters=grown, buffer_bytes=times * setting.buffer_bytes)


def _deeper(setting: Setting, times: int) -> Setting:
    """``times`` as many sharding units; what is in none stays once, unless that is the whole model."""
    inside = [each for each in setting.parameters if each.unit >= 0]
    repeated, root = (
        (inside, [each for each in setting.parameters if each.unit < 0]) if inside else (setting.parameters, [])
    )
    units_each = 1 + max((each.unit for each in inside), default=-1)
    grown: list[Parameter] = [
        replace(each, unit=each.unit + copy * units_each if inside else each.unit)
        for copy in range(times)
        for each in repeated
    ]
    return replace(setting, parameters=grown + root, buffer_bytes=times * setting.buffer_bytes)


def _root(setting: Setting) -> int:
    """Parameters that a deeper model has no more of."""
    inside = [each for each in setting.parameters if each.unit >= 0]
    return elements(setting.parameters) - elements(inside) if inside else 0


def _most_copies(setting: Setting) -> int:
    return max(2, MOST_TENSORS // max(1, len(setting.parameters)))


def _most_times(bytes_of: Callable[[int], float], room: float, largest: int) -> float | None:
    """The factor, at least 1, by which a model can grow to need ``room`` bytes; None if it does not fit.

    Between whole numbers, and beyond ``largest``, bytes are taken to grow in a straight line.
    """
    if bytes_of(1) > room:
        return None
    low, high = 1, largest
    if bytes_of(largest) > room:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if bytes_of(middle) > room else (middle, high)
        start = low
    else:
        low, start = largest // 2, largest
    slope = (bytes_of(high) - bytes_of(low)) / (high - low)
    return start + (room - bytes_of(start)) / slope
