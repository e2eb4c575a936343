"""The figures of the Pareto fronts: every cell of a task, the front joined by steps and numbered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.advice.pareto import PRICES, Front
from analysis.figures.canvas import INK, PAPER, canvas, save, style
from analysis.figures.curves import THROUGHPUT
from analysis.figures.plot import Plot
from analysis.table.frame import each_cell
from analysis.table.panels import describe, drawn
from results.verdicts import MOMENTARY

SCALES = {
    "peak_bytes": (("KiB", 2**-10), ("MiB", 2**-20), ("GiB", 2**-30)),
    "joules_per_sample": (("mJ per sample", 1e3), ("J per sample", 1.0), ("kJ per sample", 1e-3)),
}


def draw(fronts: Sequence[Front], folder: Path) -> list[Plot]:
    """A figure for each measured price, with a panel for each task and world size, as PNG files in ``folder``."""
    plots = []
    with style():
        for price in PRICES:
            own = [front for front in fronts if front.price is price]
            drawings = []
            for front in drawn(own):
                folder.mkdir(parents=True, exist_ok=True)
                file = folder / f"{price.name}{front.panel.slug}.png"
                figure = draw_front(front)
                drawings.append(save(figure, file, front.panel.title, f"{price.title}. {price.definition}"))
            if drawings:
                plots.append(Plot(price.title, price.definition, "pareto", drawings, len(own) - len(drawings)))
    return plots


def draw_front(shown: Front) -> Figure:
    """One task at one world size: every configuration, the Pareto-optimal ones joined by steps and labelled."""
    price, panel, names, places = shown.price, shown.panel, shown.names, shown.places
    table = panel.table
    words = [describe(row, names) for _, row in each_cell(table.iloc[places])]
    is_short = max(map(len, words)) <= MOST_LETTERS and len(words) <= len(PLACES) // 2
    keys = words if is_short else [str(at + 1) for at in range(len(words))]
    legend = [
        Line2D([], [], color=INK, marker="D", ls="", markersize=5, label=f"{key}  {name}")
        for key, name in zip(keys, words, strict=True)
        if not is_short
    ]
    figure, axes = canvas(1.8, panel.title, legend)
    top = float(np.nanmax(table[["throughput_per_s", "throughput_per_s_high"]].to_numpy(dtype=float)))
    scale, factor = THROUGHPUT.scale(top)
    unit, by = next((s for s in SCALES[price.column] if table[price.column].max() * s[1] < 2000), ("", 1.0))
    best, beaten = table.iloc[places], table.drop(index=table.index[places])
    _marks(axes, best, best[price.column] * by, factor, on_front=True)
    _marks(axes, beaten, beaten[price.column] * by, factor, on_front=False)
    across, up = best[price.column] * by, best["throughput_per_s"] * factor
    axes.step(across, up, where="pre", color=INK, linewidth=0.9, dashes=(4, 2), zorder=1)
    axes.set_ylim(0, top * factor * 1.15)
    least, most = table[price.column].min() * by, table[price.column].max() * by
    room = 0.12 * (most - least) or 0.1 * most
    axes.set_xlim(max(0.0, least - room), most + room)
    _labels(axes, list(zip(across, up, strict=True)), keys)
    axes.set_xlabel(f"peak memory of a rank ({unit})" if price.column == "peak_bytes" else f"energy ({unit})")
    unit_names = table["unit"].dropna().unique()
    axes.set_ylabel(THROUGHPUT.axis.format(scale=scale, unit=f"{unit_names[0]}s" if len(unit_names) == 1 else "units"))
    return figure


PLACES = [(-7, 7), (8, 7), (8, -8), (-7, -8), (-15, 0), (15, 0), (-15, 12), (15, 12), (0, 17), (0, -18)]
"""Where a label may stand, in points from its mark; the preferred first."""
MOST_LETTERS = 9
"""Of a name that stands at its mark; longer ones are numbered, with a legend."""
LETTER = 5.2
"""Width of a letter in points."""


def _labels(axes: Axes, marks: Sequence[tuple[float, float]], keys: Sequence[str]) -> None:
    """Label each mark where its label overlaps no other label and no mark. Called when the axes have their limits."""
    per_point = axes.figure.dpi / 72
    at = [axes.transData.transform(mark) / per_point for mark in marks]
    box = axes.transAxes.transform([(0, 0), (1, 1)]) / per_point
    taken: list[Any] = []
    for key, mark, place in zip(keys, marks, at, strict=True):
        half = LETTER * (len(key) - 1) / 2
        reach = np.array([9 + 2 * half, 9])
        shifts = [np.array([x + np.sign(x) * half, y]) for x, y in PLACES]
        inside = [s for s in shifts if box[0][0] < place[0] + s[0] - half and place[0] + s[0] + half < box[1][0]]
        others = [*taken, *(other for other in at if other is not place)]
        free = (s for s in inside if not any((np.abs(place + s - other) < reach).all() for other in others))
        shift = next(free, (inside or shifts)[0])
        taken.append(place + shift)
        axes.annotate(
            key, mark, xytext=tuple(shift), textcoords="offset points", ha="center", va="center", weight="bold"
        )


def _marks(axes: Axes, shown: pd.DataFrame, across: pd.Series, factor: float, *, on_front: bool) -> None:
    middle, low, high = (shown[f"throughput_per_s{end}"] * factor for end in ("", "_low", "_high"))
    reach = np.nan_to_num(np.array([middle - low, high - middle], dtype=float))
    for crowded, face in ((True, PAPER), (False, INK)):
        own = (shown["verdicts"].str.contains("oversubscribed") == crowded).to_numpy()
        if not own.any():
            continue
        axes.errorbar(
            across[own],
            middle[own],
            yerr=reach[:, own] if on_front else None,
            fmt="D" if on_front else "o",
            color=INK,
            alpha=1.0 if on_front else 0.55,
            markerfacecolor=face,
            markersize=6.5 if on_front else 4,
            elinewidth=1,
            capsize=2,
            zorder=4 if on_front else 3,
        )
    disturbed = shown["verdicts"].str.contains("|".join(MOMENTARY)).to_numpy()
    axes.plot(across[disturbed], middle[disturbed], "x", color=INK, markersize=10, markeredgewidth=0.9, zorder=5)
