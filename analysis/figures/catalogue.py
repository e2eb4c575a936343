"""All figures of a report: what each shows, how it is defined, and its panels drawn and saved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import launches, memory_over_time, overview
from analysis.figures.canvas import save, style
from analysis.figures.curves import EFFICIENCY, LINED, SERIAL, THROUGHPUT, curve
from analysis.figures.memory import peak_bars, residual_bars, state_bars
from analysis.figures.plot import Plot
from analysis.figures.scaling_loss import loss_bars
from analysis.figures.step_parts import part_bars
from analysis.figures.traffic import sent_bars
from analysis.metrics.measured import Measured
from analysis.metrics.memory import limit_bytes
from analysis.table.panels import Panel, PanelLayout, drawn, layout, panels
from analysis.table.warnings import bearing
from results.verdicts import IDLE, UNTRAINED


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure."""

    name: str
    title: str
    definition: str
    """What is drawn and how it is defined, in a sentence or two."""
    draw: Callable[[Panel, PanelLayout], Figure | None]
    section: str
    """The anchor of the section of the report that shows it."""
    subject: str = "time"
    """``time`` or ``memory``."""
    needs_worlds: bool = False
    """Says nothing unless several world sizes were run."""
    is_curve: bool = False
    """Needs several values of a number along its axis."""


INTERVAL = "Intervals are over launches; a cross: disturbed."

KINDS = [
    FigureKind(
        "sent_bytes",
        "Bytes sent",
        "Per rank and step, each call at its bandwidth optimum, as counted in an untimed step.",
        sent_bars,
        "overview",
        subject="memory",
    ),
    FigureKind(
        "throughput",
        "Throughput by world size",
        "All ranks together, over the total time of measured steps. " + INTERVAL,
        partial(curve, quantity=THROUGHPUT),
        "overview",
        is_curve=True,
    ),
    FigureKind(
        "scaling_efficiency",
        "Scaling efficiency",
        "Throughput per rank relative to the smallest world size. Cap: limit by shared cores; hollow: oversubscribed.",
        partial(curve, quantity=EFFICIENCY),
        "overview",
        needs_worlds=True,
        is_curve=True,
    ),
    FigureKind(
        "scaling_loss",
        "Parts of the loss",
        "Additional time per part for the same work, relative to the smallest world size; left of zero it is less. "
        "Unexplained: what the profiled launch does not show of the measured loss.",
        loss_bars,
        "scaling-loss",
        needs_worlds=True,
    ),
    FigureKind(
        "serial_fraction",
        "Serial fraction of strong scaling",
        "Karp and Flatt: (1/speedup - 1/n) / (1 - 1/n), n the growth of the world. Rises with overhead. " + INTERVAL,
        partial(curve, quantity=SERIAL),
        "serial-fraction",
        needs_worlds=True,
        is_curve=True,
    ),
    FigureKind(
        "step_parts",
        "Parts of a step",
        "From a profiled launch, mean over steps and ranks. Exposed: communication that no computation overlaps. "
        "*: instruments disagree.",
        part_bars,
        "step-parts",
    ),
    FigureKind(
        "model_state",
        "Model state per rank",
        "The rank with the most, between backward and update, by kind; below each bar the prediction from parameter "
        "shapes, with the difference where it is 0.05 % or more.",
        state_bars,
        "memory",
        subject="memory",
    ),
    FigureKind(
        "peak_memory",
        "Peak memory per rank",
        "The largest allocation at any moment of an untimed step, by use; below each bar the prediction, an upper "
        "bound.",
        peak_bars,
        "memory",
        subject="memory",
    ),
    FigureKind(
        "memory_residual",
        "Residual of the predicted peak",
        "Measured over predicted peak. The prediction is an upper bound, so a bar to the left is expected.",
        residual_bars,
        "memory-residual",
        subject="memory",
    ),
]


def draw(cells: Sequence[Measured], table: pd.DataFrame, folder: Path) -> list[Plot]:
    """Draw every kind of figure that ``table`` has data for and save its panels as PNG files in ``folder``.

    ``cells`` are those of the table's index. Only those that ended ok are drawn, and of those that diverged no times.
    """
    shown = table[(table["status"] == "ok") & table["step_time_s"].notna()]
    if shown.empty:
        return []
    place = layout(shown)
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        plots = _overview(cells, shown, place, folder)
        for kind in KINDS:
            if _has_subject(kind, shown, place):
                plots += _plot(kind, shown, place, place.panels, folder)
        plots += _launches(cells, shown, place, folder)
        plots += _memory_over_time(cells, shown, place, folder)
    return plots


def _has_subject(kind: FigureKind, shown: pd.DataFrame, place: PanelLayout) -> bool:
    """Whether there is something to compare: several world sizes, or several values along a curve."""
    if kind.needs_worlds and shown["gpus"].nunique() < 2:
        return False
    return not kind.is_curve or (place.axis in LINED and shown[place.axis].nunique() > 1)


def _overview(cells: Sequence[Measured], shown: pd.DataFrame, place: PanelLayout, folder: Path) -> list[Plot]:
    limits = {int(at): limit_bytes(cells[int(at)].record) for at in shown.index}
    names = [*place.panels, *(["gpus"] if place.axis == "gpus" else [])]
    kind = FigureKind(
        "overview", overview.TITLE, overview.DEFINITION, partial(overview.overview, limits=limits), "answer"
    )
    return _plot(kind, shown, place, names, folder)


def _launches(cells: Sequence[Measured], shown: pd.DataFrame, place: PanelLayout, folder: Path) -> list[Plot]:
    samples = {int(at): cells[int(at)].launch_throughputs() for at in shown.index}
    draw_dots = partial(launches.launch_dots, throughputs=samples)
    kind = FigureKind("launches", launches.TITLE, launches.DEFINITION, draw_dots, "overview")
    return _plot(kind, shown, place, place.panels, folder)


def _memory_over_time(cells: Sequence[Measured], shown: pd.DataFrame, place: PanelLayout, folder: Path) -> list[Plot]:
    """A panel for each traced configuration."""
    traces = {int(at): cells[int(at)].record.traces for at in shown.index}
    timelines = {at: entry.timeline for at, entry in traces.items() if entry and entry.timeline}
    draw_step = partial(memory_over_time.memory_over_time, timelines=timelines)
    title, definition = memory_over_time.TITLE, memory_over_time.DEFINITION
    kind = FigureKind("memory_over_time", title, definition, draw_step, "traces", subject="memory")
    traced = shown[[int(at) in timelines for at in shown.index]]
    names = [*place.panels, place.axis, *([place.series] if place.series else [])]
    return _plot(kind, traced, place, names, folder) if timelines else []


def _plot(kind: FigureKind, shown: pd.DataFrame, place: PanelLayout, names: list[str], folder: Path) -> list[Plot]:
    """One kind with a panel for each combination of the settings ``names``; none where nothing is drawn."""
    split = panels(shown, names)
    shown_panels = drawn(split)
    drawings = [
        save(figure, folder / f"{kind.name}{panel.slug}.png", panel.title, f"{kind.title}. {kind.definition}")
        for panel in _without(UNTRAINED if kind.subject == "time" else IDLE, shown_panels)
        if (figure := kind.draw(panel, place)) is not None
    ]
    left_out = len(split) - len(shown_panels)
    return [Plot(kind.title, kind.definition, kind.section, drawings, left_out)] if drawings else []


def _without(verdicts: Collection[str], split: Sequence[Panel]) -> list[Panel]:
    """Without cells that have such a verdict: NaN takes other time than numbers, but no other memory."""
    kept = []
    for panel in split:
        table, peers = (part[~bearing(part, verdicts)] for part in (panel.table, panel.peers))
        if len(table):
            kept.append(replace(panel, table=table, peers=peers))
    return kept
