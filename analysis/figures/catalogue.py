"""All figures of a report: what each shows, how it is defined, and its panels drawn and saved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.canvas import Drawing, save, style
from analysis.figures.curves import EFFICIENCY, SERIAL, THROUGHPUT, TIME, curve
from analysis.figures.memory import peak_bars, state_bars
from analysis.figures.scaling_loss import loss_bars
from analysis.figures.step_parts import part_bars
from analysis.table.panels import Layout, Panel, drawn, layout, panels
from analysis.table.warnings import bearing
from results.verdicts import IDLE, UNTRAINED


@dataclass(frozen=True)
class Kind:
    """One kind of figure."""

    name: str
    title: str
    definition: str
    """What is drawn and how it is defined, in a sentence or two."""
    draw: Callable[[Panel, Layout], Figure | None]
    subject: str = "time"
    """``time`` or ``memory``: figures of one subject stand side by side."""
    needs_worlds: bool = False
    """Says nothing unless several world sizes were run."""


@dataclass(frozen=True)
class Plot:
    """One kind of figure as drawn for a report."""

    title: str
    definition: str
    subject: str
    drawings: list[Drawing]
    left_out: int
    """Panels that were not drawn."""


INTERVAL = (
    "Bars are bootstrap intervals over launches, at the level that so many launches attain. A cross: disturbed while "
    "it was timed (see the verdicts)."
)

KINDS = [
    Kind(
        "scaling_efficiency",
        "Scaling efficiency",
        "Throughput per rank, relative to that of the smallest world size of the same setting. The dotted cap is what "
        "shared cores or GPUs leave at most; hollow points are oversubscribed and say nothing about scaling. "
        + INTERVAL,
        partial(curve, quantity=EFFICIENCY),
        needs_worlds=True,
    ),
    Kind(
        "scaling_loss",
        "What the loss is made of",
        "What each part of profiled steps costs a rank more, for the same work, than in the smallest world of the same "
        "setting. Left of zero it costs less. Unexplained is the rest of the measured loss: what the profiled launch "
        "had and the timed ones did not, or the reverse.",
        loss_bars,
        needs_worlds=True,
    ),
    Kind(
        "serial_fraction",
        "Serial fraction of strong scaling",
        "Karp and Flatt: (1/speedup - 1/n) / (1 - 1/n), n the growth of the world. It rises with overhead and stays "
        "constant with a serial part. " + INTERVAL,
        partial(curve, quantity=SERIAL),
        needs_worlds=True,
    ),
    Kind(
        "step_time",
        "Step time",
        "Forward, backward and update of one step, taken by the slowest rank; the median over a launch's steps, then "
        "over launches. " + INTERVAL,
        partial(curve, quantity=TIME),
    ),
    Kind(
        "throughput",
        "Throughput",
        "Units (samples or tokens) that all ranks trained on together, over the total time of the measured steps; "
        "the median over launches. " + INTERVAL,
        partial(curve, quantity=THROUGHPUT),
    ),
    Kind(
        "step_parts",
        "What a step is made of",
        "From a profiled launch, mean over steps and ranks. Exposed is communication with no computation beside it "
        "and every rank taking part; overlap is the share of all communication that ran beside computation.",
        part_bars,
    ),
    Kind(
        "model_state",
        "Model state per rank",
        "What the rank that holds most keeps between backward and update, by kind, as counted in the engine's tensors; "
        "below each bar what the formulas predict for this engine, from parameter shapes alone. In brackets the "
        "difference, where it is 0.05 % or more.",
        state_bars,
        subject="memory",
    ),
    Kind(
        "peak_memory",
        "Peak memory per rank",
        "The most that any rank had allocated at one moment of a step, counted at the allocator in a launch that was "
        "not timed, by what it was for at that moment; below each bar what is predicted at most: model state, what "
        "the engine needs to gather and reduce, and the activations of a single process. In brackets the residual: "
        "measured minus predicted.",
        peak_bars,
        subject="memory",
    ),
]


def draw(table: pd.DataFrame, folder: Path) -> list[Plot]:
    """Draws every kind of figure that ``table`` has data for and saves its panels as PNG files in ``folder``.

    Only cells that ended ok are drawn, and of those that diverged no times.
    """
    shown = table[(table["status"] == "ok") & table["step_time_s"].notna()]
    if shown.empty:
        return []
    place = layout(shown)
    split = panels(shown, place.panels)
    shown_panels = drawn(split)
    folder.mkdir(parents=True, exist_ok=True)
    plots = []
    with style():
        for kind in KINDS:
            if kind.needs_worlds and shown["gpus"].nunique() < 2:
                continue
            drawings = [
                save(figure, folder / f"{kind.name}{panel.slug}.png", panel.title, f"{kind.title}. {kind.definition}")
                for panel in _without(UNTRAINED if kind.subject == "time" else IDLE, shown_panels)
                if (figure := kind.draw(panel, place)) is not None
            ]
            if drawings:
                left_out = len(split) - len(shown_panels)
                plots.append(Plot(kind.title, kind.definition, kind.subject, drawings, left_out))
    return plots


def _without(verdicts: Collection[str], split: Sequence[Panel]) -> list[Panel]:
    """Without cells that have such a verdict: NaN takes other time than numbers, but no other memory."""
    kept = []
    for panel in split:
        table, peers = (part[~bearing(part, verdicts)] for part in (panel.table, panel.peers))
        if len(table):
            kept.append(replace(panel, table=table, peers=peers))
    return kept
