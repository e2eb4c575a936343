"""What scaling loss is made of, as a person reads it: the rows of the report's section, and the figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis import units
from analysis.bars import Rows
from analysis.canvas import INK, PAPER, WIDTH, canvas
from analysis.cells import world_size
from analysis.layout import Layout, Panel
from analysis.loss import PARTS, profiled_over_timed
from analysis.rows import span, value
from analysis.scaling import baselines
from analysis.steps import WORDS, looks
from bench.record import Attribution, Record

HOW = "run with measure=full"
STRETCH = 0.1
"""Share by which profiled steps may differ from timed ones before a reader is told."""
UNEXPLAINED = {"facecolor": PAPER, "edgecolor": INK, "lw": 0.5, "hatch": "oo"}


@dataclass(frozen=True)
class LossRow:
    """One cell's loss in words, in per cent of a rank's time."""

    knobs: list[str]
    lost: str
    lost_range: str
    parts: list[str]
    """As ``PARTS``; negative where the larger world saves."""
    unexplained: str
    notes: list[str]


def loss_rows(records: Sequence[Record], table: pd.DataFrame, names: Sequence[str]) -> list[LossRow]:
    """A row for each cell that is measured against a smaller world, in the table's order.

    None at all where nobody asked for attributions: ``can_be_told`` then says how to get them.
    """
    if can_be_told(records, table):
        return []
    bases = baselines(list(records))
    found = []
    for index, row in grown(table).iterrows():
        at = int(str(index))
        base = bases[at]
        assert base is not None, "a cell with an efficiency has a baseline"
        low, high = 1 - row["scaling_efficiency_high"], 1 - row["scaling_efficiency_low"]
        ends = pd.Series({"lost_low": low, "lost_high": high})
        found.append(
            LossRow(
                knobs=[value(name, row[name]) for name in names],
                lost=units.percent(1 - row["scaling_efficiency"]),
                lost_range=span(ends, "lost", 100),
                parts=[points(row[f"loss_{part}"]) for part in PARTS],
                unexplained=points(row["loss_unexplained"]),
                notes=notes(records[at], base, row),
            )
        )
    return found


def grown(table: pd.DataFrame) -> pd.DataFrame:
    """The cells that are measured against a smaller world."""
    return table[table["gpus"] > table["scaling_baseline_gpus"]]


def can_be_told(records: Sequence[Record], table: pd.DataFrame) -> str:
    """How to learn what is lost, where cells lose but no step was attributed; else empty."""
    cells = [records[int(str(index))] for index in grown(table).index]
    missing = cells and all(cell.attribution is None for cell in cells)
    return f"What scaling loses, and to what: {HOW}." if missing else ""


def points(share: float) -> str:
    """A share in per cent to one decimal, with its sign, such as ``+3.4``."""
    return f"{round(100 * share, 1) + 0.0:+.1f}" if units.known(share) else units.MISSING


def notes(record: Record, base: Record, row: pd.Series) -> list[str]:
    """Why there are no parts, or what to know of them."""
    baseline = f"its baseline, {units.counted(world_size(base), 'rank')}, was not profiled"
    for side, what in ((record, "not profiled"), (base, baseline)):
        held = side.attribution or Attribution()
        if not held.steps:
            return [f"{what}: {held.unprofiled or HOW}"]
    said = []
    for side, whose in ((record, "its profiled steps"), (base, "its baseline's profiled steps")):
        if abs(math.log(ratio := profiled_over_timed(side))) > math.log1p(STRETCH):
            said.append(f"{whose} took {ratio:.2f} times the timed ones")
    if "instruments_disagree" in row["verdicts"].split(";"):
        said.append("instruments disagree")
    if "oversubscribed" in row["verdicts"].split(";"):
        said.append("oversubscribed: the ranks share cores")
    return said


def loss_bars(panel: Panel, layout: Layout) -> Figure | None:
    """The parts of each cell's loss, what is lost to the right of zero and what is saved to the left; None without."""
    table = panel.table[panel.table["loss_compute"].notna()]
    if table.empty:
        return None
    shown = {**{part: looks(part) for part in PARTS}, "unexplained": UNEXPLAINED}
    rows = Rows(table, layout)
    legend = [Patch(label=WORDS.get(part, part), **look) for part, look in shown.items()]
    figure, axes = canvas(rows.height, panel.title, legend, left=rows.left)
    longest = deepest = 0.0
    for at, (_, row) in zip(rows.places, table.iterrows(), strict=True):
        right = left = 0.0
        for part, look in shown.items():
            width = 100 * row[f"loss_{part}"]
            axes.barh(at, width, 0.6, left=right if width > 0 else left, **look)
            right, left = right + max(width, 0), left + min(width, 0)
        rows.say(axes, at, right, f"{units.percent(1 - row['scaling_efficiency'])} lost")
        longest, deepest = max(longest, right), min(deepest, left)
    rows.frame(axes, "share of a rank's time (%)", longest)
    inches = WIDTH - rows.left - 0.12
    axes.set_xlim(deepest * 1.05, (longest * inches - deepest * 1.05 * rows.room) / (inches - rows.room))
    axes.axvline(0, color=INK, linewidth=1)
    return figure
