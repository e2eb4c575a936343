"""The memory ledger as a person reads it: a row a cell at the peak of a step, and why a higher stage can need more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from analysis.metrics.memory import COUNTED, KINDS
from analysis.table.frame import Cell, each_cell
from analysis.table.panels import describe
from analysis.table.rows import part, value
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
    "batch": "the batch",
    "gathered": "parameters gathered whole to compute with",
    "unreduced": "gradients not yet reduced",
    "communication": "buckets and what collectives receive into",
    "activations": "activations",
    "temporaries": "temporaries",
    "other": "what was there before the step for no known use",
    "unseen": "what the profiler did not see",
}

WORTH_SAYING = 0.01
"""A higher stage's peak is explained if it is larger by this share, and a kind if it differs by this share of it."""

MOST_EXPLAINED = 24
"""Settings whose higher stage is explained; more are counted."""


@dataclass(frozen=True)
class MemoryRow:
    """The memory of one cell in MiB, on the rank with the largest peak; predictions beside, empty where none is."""

    knobs: list[str]
    rest: str
    rest_predicted: str
    phase: str
    state: str
    state_predicted: str
    working: str
    """Gathered parameters, gradients not yet reduced, and communication buffers."""
    working_predicted: str
    activations: str
    activations_predicted: str
    temporaries: str
    temporaries_predicted: str
    peak: str
    peak_predicted: str
    residual: str
    """Measured minus predicted."""
    slack: str
    beyond: str


def memory_rows(table: pd.DataFrame, names: Sequence[str]) -> list[MemoryRow]:
    """A row for each cell whose peak was taken apart, in the table's order."""
    return [_row(row, names) for _, row in each_cell(_taken_apart(table))]


def _row(row: Cell, names: Sequence[str]) -> MemoryRow:
    return MemoryRow(
        knobs=[value(name, row[name]) for name in names],
        rest=units.mib(row["rest_bytes"]),
        rest_predicted=_predicted(row["rest_predicted_bytes"]),
        phase=str(row["peak_phase"]),
        state=units.mib(part(row, "state")),
        state_predicted=_predicted(row["model_state_predicted_bytes"]),
        working=units.mib(part(row, "gathered") + part(row, "communication")),
        working_predicted=_predicted(row["working_predicted_bytes"], row["handover_predicted_bytes"]),
        activations=units.mib(part(row, "activations")),
        activations_predicted=_predicted(row["activations_predicted_bytes"], row["batch_predicted_bytes"]),
        temporaries=units.mib(part(row, "temporaries")),
        temporaries_predicted=_predicted(row["temporaries_predicted_bytes"]),
        peak=units.mib(row["peak_bytes"]),
        peak_predicted=_predicted(row["peak_predicted_bytes"]),
        residual=_difference(row["peak_bytes"], row["peak_predicted_bytes"]),
        slack=units.mib(row["slack_bytes"]),
        beyond=units.mib(row["beyond_allocator_bytes"]),
    )


def higher_stages(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Why a stage needs more at its peak than the next lower one, for every setting where it does, or the first ones.

    The last line counts those that are left out.
    """
    others = [name for name in names if name != "stage"]
    alike: dict[tuple[str, ...], list[Cell]] = {}
    for _, row in each_cell(_taken_apart(table)):
        alike.setdefault(tuple(frozen(row[name]) for name in others), []).append(row)
    pairs = [
        (lower, higher)
        for stages in alike.values()
        for lower, higher in pairwise(sorted(stages, key=lambda row: int(row["stage"])))
        if higher["stage"] > lower["stage"] and higher["peak_bytes"] > (1 + WORTH_SAYING) * lower["peak_bytes"]
    ]
    said = [
        f"{capital(describe(higher, others))}: {explanation(lower, higher)}" for lower, higher in pairs[:MOST_EXPLAINED]
    ]
    left = len(pairs) - len(said)
    return [*said, f"And {counted(left, 'more setting')}: summary.csv has the bytes by kind."] if left else said


def explanation(lower: Cell, higher: Cell) -> str:
    """Where the difference between two peaks lies, from what was measured; its parts add up to it."""
    names = [label("stage", row["stage"]) for row in (lower, higher)]
    change = {kind: higher[f"peak_{kind}_bytes"] - lower[f"peak_{kind}_bytes"] for kind in COUNTED}
    total = higher["peak_bytes"] - lower["peak_bytes"]
    saved = sum(change[kind] for kind in KINDS)
    said = [f"{names[1]} needs {units.size(total)} more at its peak than {names[0]}."]
    if saved < 0:
        said.append(f"It keeps {units.size(-saved)} less model state, but what it computes and communicates with")
        said.append(f"takes {units.size(total - saved)} more.")
    elif saved:
        said.append(f"Its model state at that moment is {units.size(saved)} larger.")
    else:
        said.append("Its model state at that moment is the same.")
    least = WORTH_SAYING * higher["peak_bytes"]
    for verb, sign in (("More", 1), ("Less", -1)):
        kinds = sorted((kind for kind in COUNTED if sign * change[kind] > least), key=lambda kind: -sign * change[kind])
        if kinds:
            said.append(f"{verb}: {joined([f'{WORDS[kind]} ({_change(change[kind])})' for kind in kinds])}.")
    if lower["peak_phase"] != higher["peak_phase"]:
        said.append(f"Its peak falls into {higher['peak_phase']}, that of {names[0]} into {lower['peak_phase']}.")
    return " ".join(said)


def _taken_apart(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["status"] == "ok") & table["peak_params_bytes"].notna()]


def _predicted(*parts_bytes: float | None) -> str:
    sizes = [size for size in parts_bytes if size is not None and units.known(size)]
    return units.mib(sum(sizes)) if len(sizes) == len(parts_bytes) else ""


def _difference(measured: float, predicted: float | None) -> str:
    return (
        _change(measured - predicted, units.mib) if predicted is not None and units.known(predicted) else units.MISSING
    )


def _change(size_bytes: float, written: Callable[[float], str] = units.size) -> str:
    return f"{'-' if size_bytes < 0 else '+'}{written(abs(size_bytes))}"
