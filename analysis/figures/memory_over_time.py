"""The memory of one rank over one step, stacked by use."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis.figures.canvas import INK, SCALES, canvas
from analysis.figures.memory import PART_HATCHES, PART_WORDS, UNITS, unit_for
from analysis.metrics.memory import PARTS
from analysis.table.panels import Panel, PanelLayout
from results.traces import MemoryTimeline

TITLE = "Memory over a step"
DEFINITION = (
    "Allocated bytes of the rank with the largest peak, by use, in the step with the median peak. The time axis is "
    "that of a profiled step, which takes longer."
)
HEIGHT = 1.7
"""Inches of the axes."""
HEADROOM = 1.18
"""Room above the highest peak for the names of phases."""
NARROWEST = 0.09
"""Share of a step below which a phase has no room for its name."""


def memory_over_time(panel: Panel, layout: PanelLayout, timelines: Mapping[int, MemoryTimeline]) -> Figure | None:
    """One configuration; ``timelines`` are by the table's index. None without one."""
    timeline = timelines.get(int(panel.table.index[0]))
    if timeline is None:
        return None
    highest = max(timelines[int(at)].peak_bytes for at in panel.peers.index if int(at) in timelines)
    unit = unit_for(highest)
    scale, factor = next(((name, by) for name, by in SCALES if timeline.duration_s * by < 2000), SCALES[-1])
    colours = dict(zip(PARTS, sns.color_palette("colorblind", len(PARTS)), strict=True))
    times = [*(at * factor for at in timeline.times_s), timeline.duration_s * factor]
    parts = {name: stacked(timeline, kinds) / UNITS[unit] for name, kinds in PARTS.items()}
    shown = [name for name, sizes in parts.items() if sizes.any()]
    legend = [
        Patch(facecolor=colours[name], edgecolor=INK, lw=0.5, hatch=PART_HATCHES[name], label=PART_WORDS[name])
        for name in shown
    ]
    figure, axes = canvas(HEIGHT, panel.title, legend)
    below = np.zeros(len(times))
    for name in shown:
        above = below + np.append(parts[name], parts[name][-1])
        axes.fill_between(
            times, below, above, step="post", facecolor=colours[name], hatch=PART_HATCHES[name], edgecolor=INK, lw=0.3
        )
        below = above
    axes.set_xlim(0, times[-1])
    axes.set_ylim(0, HEADROOM * highest / UNITS[unit])
    ends = [phase.at_s for phase in timeline.phases[1:]] + [timeline.duration_s]
    for phase, end in zip(timeline.phases, ends, strict=True):
        axes.axvline(phase.at_s * factor, color=INK, linewidth=0.9, dashes=(4, 2))
        if end - phase.at_s >= NARROWEST * timeline.duration_s:
            axes.annotate(
                phase.phase,
                (phase.at_s * factor, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                fontsize=8.5,
            )
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(f"time in a profiled step of rank {timeline.rank} ({scale})")
    axes.set_ylabel(unit)
    return figure


def stacked(timeline: MemoryTimeline, kinds: tuple[str, ...]) -> np.ndarray:
    """Bytes of some kinds together, sample by sample."""
    series = [timeline.bytes_by_kind[kind] for kind in kinds if kind in timeline.bytes_by_kind]
    return np.sum(series, axis=0, dtype=float) if series else np.zeros(len(timeline.times_s))
