"""Figures over world size (or another setting): scaling efficiency, step time and throughput with their intervals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import log2
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.figures.canvas import FAINT, INK, PAPER, canvas
from analysis.table.panels import Panel, PanelLayout
from analysis.text.labels import label
from results.identity import frozen
from results.verdicts import MOMENTARY

MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<"]
DASHES: list[Any] = ["", (4, 1.5), (1.5, 1.2), (5, 1.2, 1.2, 1.2), (3, 1, 1, 1, 1, 1), (6, 2), (2, 2), (7, 1, 1, 1)]
AXES = {"gpus": "world size (ranks)", "bucket_mb": "bucket size (MiB)", "stage": ""}
LINED = ("gpus", "bucket_mb", "batch_size")
"""Settings that are numbers: points along them are joined."""
SPREAD = 0.24
"""Width over which the series of one place on the axis are laid side by side; places are 1 apart."""


@dataclass(frozen=True)
class Quantity:
    """The vertical axis of a figure: a column of the table, in the first scale that keeps its numbers short."""

    column: str
    axis: str
    """Its words; ``{scale}`` becomes the name of the scale and ``{unit}`` samples or tokens."""
    scales: tuple[tuple[str, float], ...]
    """Name and factor of each scale, finest first."""
    is_efficiency: bool = False
    grows: bool = False
    """Whether it ideally grows in proportion to the world size."""

    def scale(self, top: float) -> tuple[str, float]:
        """The finest scale in which ``top``, the largest value in the table, stays below 2,000."""
        return next(((name, factor) for name, factor in self.scales if top * factor < 2000), self.scales[-1])


THROUGHPUT = Quantity(
    "throughput_per_s",
    "{scale}{unit} per second",
    (("", 1), ("thousand ", 1e-3), ("million ", 1e-6), ("billion ", 1e-9)),
    grows=True,
)
EFFICIENCY = Quantity("scaling_efficiency", "scaling efficiency (%)", (("", 100),), is_efficiency=True)
SERIAL = Quantity("serial_fraction", "serial fraction (%)", (("", 100),))


def curve(panel: Panel, layout: PanelLayout, quantity: Quantity) -> Figure | None:
    """One panel; None if it has nothing to show."""
    table = panel.table[panel.table[quantity.column].notna()]
    if table.empty:
        return None
    top = float(np.nanmax(panel.peers[[quantity.column, f"{quantity.column}_high"]].to_numpy(dtype=float)))
    scale, factor = quantity.scale(top)
    places = _places(panel.table[layout.axis].tolist(), layout.axis)
    groups = _series(panel.peers, layout.series)  # one look per series in all panels
    looks = {key: json.loads(key) if layout.series == "stage" else at for at, key in enumerate(groups)}
    colours = sns.color_palette("colorblind", max(looks.values()) + 1)
    names = {looks[key]: name for key, name in _series(panel.table, layout.series).items()}
    has_ideal = quantity.grows and layout.axis == "gpus"
    legend = _legend(names, colours, table, is_efficiency=quantity.is_efficiency, has_ideal=has_ideal)
    figure, axes = canvas(2.4, panel.title, legend)
    axes.set_xlabel(AXES.get(layout.axis, layout.axis.replace("_", " ")))  # first: seaborn lays out axes without words
    axes.set_ylabel(quantity.axis.format(scale=scale, unit=unit_of(panel.peers)))
    shown = _placed(table, layout, places, looks, quantity.column, factor)
    if layout.axis in LINED:
        _lines(axes, shown, colours)
    _marks(axes, shown, colours)
    _disturbed(axes, shown[shown["disturbed"]])
    bottom = float(np.nanmin([0.0, *shown["y"], *shown["low"]]))  # a speedup above ideal has a fraction below 0
    _frame(axes, layout, places, bottom, top * factor)
    if layout.axis == "gpus" and shown["crowded"].any():
        _crowd(axes, [places[frozen(value)] for value in table.loc[shown["crowded"], "gpus"]])
    if quantity.is_efficiency:
        _limits(axes, table, places)
    if has_ideal:
        _ideal(axes, table, places, quantity.column, factor)
    return figure


def _places(values: list[Any], axis: str) -> dict[str, float]:
    """The position of each value of the axis setting: world sizes on a binary logarithm, anything else in turn."""
    distinct = list(dict.fromkeys(values))
    if axis == "gpus" and len(distinct) <= 8:
        return {frozen(value): log2(value) for value in sorted(distinct)}
    if all(isinstance(value, int | float) for value in distinct):
        distinct = sorted(distinct)
    return {frozen(value): float(at) for at, value in enumerate(distinct)}


def _series(table: pd.DataFrame, setting: str | None) -> dict[str, str]:
    """The series of a panel: the setting's value as a key, and its words."""
    if setting is None:
        return {"": ""}
    return {frozen(value): label(setting, value) for value in table[setting]}


def _placed(
    table: pd.DataFrame,
    layout: PanelLayout,
    places: dict[str, float],
    looks: dict[str, int],
    column: str,
    factor: float,
) -> pd.DataFrame:
    """The panel's points in axis coordinates: x, y, low, high, look of the series, and what makes a mark hollow."""
    keys = table[layout.series].map(frozen) if layout.series else pd.Series("", index=table.index)
    turn = keys.map({key: at for at, key in enumerate(looks)})
    step = SPREAD / max(len(looks) - 1, 1)
    return pd.DataFrame(
        {
            "x": table[layout.axis].map(frozen).map(places) + (turn - (len(looks) - 1) / 2) * step,
            "y": table[column] * factor,
            "low": table[f"{column}_low"] * factor,
            "high": table[f"{column}_high"] * factor,
            "look": keys.map(looks),
            "crowded": table["verdicts"].str.contains("oversubscribed"),
            "disturbed": table["verdicts"].str.contains("|".join(MOMENTARY)),
            "hollow": table["verdicts"].str.contains("oversubscribed"),
        }
    )


def _lines(axes: Axes, shown: pd.DataFrame, colours: Any) -> None:
    looks = sorted(shown["look"].unique())
    sns.lineplot(
        data=shown,
        x="x",
        y="y",
        hue="look",
        style="look",
        hue_order=looks,
        style_order=looks,
        palette={look: colours[look] for look in looks},
        dashes={look: DASHES[look % len(DASHES)] for look in looks},
        estimator=None,
        errorbar=None,
        legend=False,
        linewidth=1.3,
        ax=axes,
    )


def _marks(axes: Axes, shown: pd.DataFrame, colours: Any) -> None:
    """A mark and its interval per cell; hollow where ranks shared cores or were not there."""
    for (series, hollow), points in shown.groupby(["look", "hollow"]):
        look = int(str(series))
        reach = np.abs(points[["low", "high"]].to_numpy().T - points["y"].to_numpy())
        axes.errorbar(
            points["x"],
            points["y"],
            yerr=np.nan_to_num(reach),
            fmt=MARKERS[look % len(MARKERS)],
            color=colours[look],
            markerfacecolor=PAPER if hollow else colours[look],
            markersize=5.5,
            markeredgewidth=1.3,
            elinewidth=1.3,
            capsize=2.5,
            zorder=3,
        )


def _disturbed(axes: Axes, points: pd.DataFrame) -> None:
    """A cross over each cell that was disturbed while it was timed."""
    axes.plot(points["x"], points["y"], "x", color=INK, markersize=10, markeredgewidth=0.9, zorder=4)


def _frame(axes: Axes, layout: PanelLayout, places: dict[str, float], bottom: float, top: float) -> None:
    """Limits, ticks and their words."""
    at = list(places.values())
    names = [_tick(layout.axis, key) for key in places]
    every = max(1, -(-len(at) // 8))
    axes.set_xticks(at[::every], names[::every])
    axes.set_xlim(min(at) - 0.5, max(at) + 0.5)
    axes.set_ylim(bottom * 1.12, top * 1.12)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.grid(axis="x", visible=False)


def unit_of(table: pd.DataFrame) -> str:
    units = table["unit"].dropna().unique()
    return f"{units[0]}s" if len(units) == 1 else "units"


def _tick(setting: str, key: str) -> str:
    value = json.loads(key)
    if setting == "stage":
        return label(setting, value)
    return "default" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)


def _crowd(axes: Axes, places: list[float]) -> None:
    """Shades the worlds in which ranks shared cores, so that no one reads scaling there."""
    left, right = min(places) - 0.5, axes.get_xlim()[1]
    axes.axvspan(left, right, color=FAINT, alpha=0.35, linewidth=0, zorder=0)
    axes.text(
        0.99, 0.985, "oversubscribed", transform=axes.transAxes, ha="right", va="top", fontsize=8.5, style="italic"
    )


def _limits(axes: Axes, table: pd.DataFrame, places: dict[str, float]) -> None:
    """The ideal and, where cores or GPUs are shared, the cap."""
    axes.axhline(100, color=INK, linewidth=1, dashes=(6, 3), zorder=1)
    caps = table.groupby("gpus")["scaling_cap"].min()
    if (caps < 1).any():
        axes.plot(
            [places[frozen(size)] for size in caps.index], caps * 100, color=INK, linewidth=2.2, alpha=0.55, ls=":"
        )


def _ideal(axes: Axes, table: pd.DataFrame, places: dict[str, float], column: str, factor: float) -> None:
    """Throughput in proportion to the world size, from the fastest of the smallest world."""
    first = table[table["gpus"] == table["gpus"].min()]
    worlds = sorted(table["gpus"].unique())
    start = float(first[column].max()) * factor / worlds[0]
    shown = np.linspace(worlds[0], worlds[-1], 50) if worlds[-1] > worlds[0] else np.array(worlds)
    ticks = [places[frozen(int(world))] for world in worlds]
    across = np.interp(shown, worlds, ticks) if ticks != [log2(world) for world in worlds] else np.log2(shown)
    top = axes.get_ylim()[1]
    axes.plot(across, np.where(start * shown <= top, start * shown, np.nan), color=INK, linewidth=1, dashes=(6, 3))


def _legend(
    names: dict[int, str], colours: Any, table: pd.DataFrame, *, is_efficiency: bool, has_ideal: bool
) -> list[Line2D]:
    """The legend above the axes: the series and the limits."""
    handles = [
        Line2D(
            [],
            [],
            color=colours[look],
            marker=MARKERS[look % len(MARKERS)],
            markersize=5.5,
            dashes=DASHES[look % len(DASHES)] or (None, None),
            label=name,
        )
        for look, name in names.items()
        if name
    ]
    if is_efficiency or has_ideal:
        handles.append(Line2D([], [], color=INK, linewidth=1, dashes=(6, 3), label="ideal"))
    if is_efficiency and (table["scaling_cap"] < 1).any():
        handles.append(Line2D([], [], color=INK, linewidth=2.2, alpha=0.55, ls=":", label="cap"))
    return handles
