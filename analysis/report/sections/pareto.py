"""The Pareto-optimal configurations, by memory and by energy."""

from __future__ import annotations

from analysis.advice.pareto import PRICES, SAVING, Front
from analysis.report.model.content import Content
from analysis.report.model.section import Section, Value, numbers, table, words
from analysis.table.frame import each_cell
from analysis.table.panels import describe
from analysis.text import units


def section(content: Content, fronts: list[Front]) -> Section:
    """A row for each Pareto-optimal configuration, the fastest of each front first."""
    names_task = any(front.panel.title for front in fronts)
    columns = [*words(*(["among"] if names_task else []), "cost", "setting"), *numbers("throughput", "at a cost of")]
    rows = []
    for front in fronts:
        for _, row in each_cell(front.panel.table.iloc[front.places]):
            cost = row[front.price.column]
            is_memory = front.price is PRICES[0]
            rows.append(
                [
                    *([Value(front.panel.title)] if names_task else []),
                    Value("memory" if is_memory else "energy"),
                    Value(describe(row, front.names)),
                    Value(f"{units.number(row['throughput_per_s'], 4)} {row['unit']}s/s"),
                    Value(units.size(cost) if is_memory else f"{units.number(cost)} J per sample"),
                ]
            )
    return Section(
        "Pareto-optimal configurations",
        "pareto",
        tables=table(columns, rows),
        folded="all",
        notes=[
            f"No other configuration of the same world size is both faster and cheaper by {100 * SAVING:g} %. Cost: "
            "peak memory of the rank with the most, or energy per sample where it was measured. Fastest first."
        ],
    )
