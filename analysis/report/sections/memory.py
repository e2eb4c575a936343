"""Memory at the peak of a step, measured and predicted, and why a higher stage can need more."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from analysis.metrics.measured import Measured
from analysis.metrics.memory import COUNTED, PARTS
from analysis.report.model.content import Content
from analysis.report.model.section import ListItem, Points, Section, Value, numbers, words
from analysis.table.panels import describe
from analysis.text import units
from analysis.text.labels import label
from analysis.text.prose import capital, joined
from analysis.text.units import counted
from results.identity import frozen

WORDS = {
    "params": "parameters",
    "master": "master weights",
    "grads": "gradients",
    "optimizer": "optimizer state",
    "buffers": "the model's buffers",
    "host": "model state in host memory",
    "batch": "the batch",
    "gathered": "all-gathered parameters",
    "unreduced": "unreduced gradients",
    "communication": "communication buffers",
    "activations": "activations",
    "temporaries": "temporaries",
    "other": "other allocations from before the step",
    "unseen": "unattributed",
}

NOTABLE = 0.01
"""A higher stage's peak is explained if it is larger by this share, and a kind if it differs by this share of it."""

MOST_EXPLAINED = 24
"""Settings whose higher stage is explained; more are counted."""


def section(content: Content) -> Section:
    """A row for each configuration whose peak was broken down by kind."""
    columns = [
        *numbers("at rest"),
        *words("peak in"),
        *numbers("model state", "gathered and communicated", "activations", "temporaries", "peak", "off by"),
        *numbers("reserved, unallocated", "non-PyTorch"),
    ]
    lines = [*gathered_at_stage_3(content), *higher_stages(content)]
    return Section(
        "Memory of a step",
        "memory",
        lists=[Points([ListItem(line) for line in lines])] if lines else [],
        tables=content.cell_table(broken_down(content), row, columns),
        folded="details",
        notes=[
            "MiB on the rank with the largest peak; in brackets the prediction. Each part is predicted at its maximum, "
            "so the predicted peak is an upper bound: all components peaking at once.",
            "Activations and temporaries: predicted from a single process on the same micro-batch. "
            "By kind: summary.csv.",
        ],
    )


def broken_down(content: Content) -> list[Measured]:
    return content.where(lambda cell: cell.is_ok and cell.memory.is_broken_down)


def row(cell: Measured) -> list[Value]:
    memory = cell.memory
    fullest = memory.fullest
    assert fullest is not None, "the section has measured configurations only"
    working = memory.part("gathered") + memory.part("communication")
    return [
        _compared(fullest.rest_bytes, memory.rest_bytes),
        Value(str(fullest.peak_phase)),
        _compared(memory.part("state"), memory.counted_predicted_bytes),
        _compared(working, memory.working_predicted_bytes),
        _compared(memory.part("activations"), memory.activations_predicted_bytes),
        _compared(memory.part("temporaries"), memory.temporaries_predicted_bytes),
        _compared(memory.peak_bytes, memory.peak_predicted_bytes),
        Value(_difference(memory.peak_bytes, memory.peak_predicted_bytes)),
        Value(units.mib(memory.slack_bytes)),
        Value(units.mib(fullest.beyond_allocator_bytes)),
    ]


def higher_stages(content: Content) -> list[str]:
    """Why a stage needs more at its peak than the next lower one, for every setting where it does, or the first ones.

    The last line counts those that are left out.
    """
    others = [name for name in content.names if name != "stage"]
    alike: dict[tuple[str, ...], list[Measured]] = {}
    for cell in broken_down(content):
        alike.setdefault(tuple(frozen(cell.settings[name]) for name in others), []).append(cell)
    pairs = [
        (lower, higher)
        for stages in alike.values()
        for lower, higher in pairwise(sorted(stages, key=lambda cell: int(cell.settings["stage"])))
        if higher.settings["stage"] > lower.settings["stage"] and _peak(higher) > (1 + NOTABLE) * _peak(lower)
    ]
    lines = [
        f"{capital(describe(higher.settings, others))}: {explanation(lower, higher)}"
        for lower, higher in pairs[:MOST_EXPLAINED]
    ]
    left = len(pairs) - len(lines)
    return [*lines, f"And {counted(left, 'more setting')}: summary.csv has the bytes by kind."] if left else lines


def explanation(lower: Measured, higher: Measured) -> str:
    """The measured difference between two peaks by kind; the parts add up to it."""
    names = [label("stage", cell.settings["stage"]) for cell in (lower, higher)]
    change = {kind: higher.memory.peak_of(kind) - lower.memory.peak_of(kind) for kind in COUNTED}
    total = _peak(higher) - _peak(lower)
    saved = sum(change[kind] for kind in PARTS["state"])
    lines = [f"{names[1]} needs {units.size(total)} more at its peak than {names[0]}."]
    if saved < 0:
        lines.append(f"It keeps {units.size(-saved)} less model state, but computation and communication")
        lines.append(f"take {units.size(total - saved)} more.")
    elif saved:
        lines.append(f"Its model state at that moment is {units.size(saved)} larger.")
    else:
        lines.append("Its model state at that moment is the same.")
    least = NOTABLE * _peak(higher)
    for verb, sign in (("More", 1), ("Less", -1)):
        kinds = sorted((kind for kind in COUNTED if sign * change[kind] > least), key=lambda kind: -sign * change[kind])
        if kinds:
            lines.append(f"{verb}: {joined([f'{WORDS[kind]} ({_change(change[kind])})' for kind in kinds])}.")
    phases = [cell.memory.fullest.peak_phase if cell.memory.fullest else "" for cell in (lower, higher)]
    if phases[0] != phases[1]:
        lines.append(f"It peaks in {phases[1]}, {names[0]} in {phases[0]}.")
    return " ".join(lines)


def gathered_at_stage_3(content: Content) -> list[str]:
    """For each workload with a configuration at stage 3, how much of the model a rank gathers at once."""
    shares = {
        (str(cell.settings["workload"]), cell.memory.root_share, cell.memory.largest_unit_share): None
        for cell in content.cells()
        if cell.memory.root_share is not None
    }
    return [
        f"{workload}: at stage 3 a rank holds the root ({units.percent(root)} of the parameters) whole, and a unit "
        f"at a time (the largest: {units.percent(unit)})"
        for workload, root, unit in shares
    ]


def _peak(cell: Measured) -> int:
    return cell.memory.peak_bytes or 0


def _compared(measured: float | None, predicted: float | None) -> Value:
    return Value(units.mib(measured), f"({units.mib(predicted)})" if units.is_finite(predicted) else "")


def _difference(measured: float | None, predicted: float | None) -> str:
    if measured is None or predicted is None:
        return units.MISSING
    return _change(measured - predicted, units.mib)


def _change(size_bytes: float, written: Callable[[float], str] = units.size) -> str:
    return f"{'-' if size_bytes < 0 else '+'}{written(abs(size_bytes))}"
