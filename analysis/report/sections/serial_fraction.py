"""The serial fraction of strong scaling (Karp and Flatt 1990) by world size, and its trend."""

from __future__ import annotations

from analysis.metrics.measured import Measured
from analysis.metrics.scaling import by_round
from analysis.report.model.content import Content
from analysis.report.model.section import ListItem, Points, Section, Value, numbers, words
from analysis.statistics.medians import NOTHING, Interval, median_interval
from analysis.table.panels import describe
from analysis.text import units
from results.identity import frozen


def section(content: Content) -> Section:
    """A row for each configuration that has a serial fraction, and a trend for each setting."""
    cells = content.where(lambda cell: cell.serial_fraction.launches > 0)
    lines = trends(content)
    return Section(
        "Strong scaling: the serial fraction",
        "serial-fraction",
        lists=[Points([ListItem(line) for line in lines])] if lines else [],
        tables=content.cell_table(cells, row, numbers("speedup", "serial fraction"), words("notes")),
        folded="details",
        notes=[
            "Karp and Flatt (1990): the share of the baseline's step that would not have been parallel, if nothing "
            "else were lost. It rises with the number of ranks where overhead grows; a serial part keeps it constant."
        ],
    )


def row(cell: Measured) -> list[Value]:
    assert cell.efficiency is not None, "a configuration with a serial fraction has a baseline"
    growth, fraction = cell.world_size / cell.efficiency.baseline_gpus, cell.serial_fraction
    note = "oversubscribed: says nothing about scaling" if cell.is_oversubscribed else _note(fraction.value)
    return [
        Value(f"{units.number(growth * cell.efficiency.interval.value)} of {growth:g}"),
        Value(units.percent(fraction.value, 2), units.interval(fraction.low, fraction.high, 100)),
        Value(note),
    ]


def _note(fraction: float) -> str:
    if fraction > 1:
        return "above 100 %: slower than its baseline"
    return "below 0 %: the speedup was more than ideal" if fraction < 0 else ""


def trends(content: Content) -> list[str]:
    """For each setting how its serial fraction changes as the world grows, and what that means."""
    others = [name for name in content.names if name != "gpus"]
    groups: dict[tuple[str, ...], list[Measured]] = {}
    for cell in content.where(lambda cell: cell.serial_fraction.launches > 0 and not cell.is_oversubscribed):
        groups.setdefault(tuple(frozen(cell.settings[name]) for name in others), []).append(cell)
    lines = []
    for cells in groups.values():
        worlds = sorted(cells, key=lambda cell: cell.world_size)
        name = describe(worlds[0].settings, others)
        lines.append(f"{name}: {trend(worlds[0], worlds[-1], _change(worlds[0], worlds[-1]))}")
    return lines


def _change(first: Measured, last: Measured) -> Interval:
    """Ratio of the serial fraction of the last to the first's: the median of the rounds that both ran."""
    fractions = []
    for cell in (first, last):
        assert cell.efficiency is not None, "a configuration with a serial fraction has a baseline"
        growth = cell.world_size / cell.efficiency.baseline_gpus
        rounds = by_round(cell.record, cell.efficiency.base)
        fractions.append({key: (1 / share - 1) / (growth - 1) for key, share in rounds.items()})
    shared = sorted(set(fractions[0]) & set(fractions[1]))
    return median_interval([fractions[1][key] - fractions[0][key] for key in shared]) if shared else NOTHING


def trend(first: Measured, last: Measured, change: Interval) -> str:
    """The trend from the smallest to the largest world, in words."""
    start = f"{units.percent(first.serial_fraction.value, 2)} at {first.world_size} ranks"
    if first.world_size == last.world_size:
        return f"{start}; one world size shows no trend."
    path = f"from {start} to {units.percent(last.serial_fraction.value, 2)} at {last.world_size}"
    if not units.is_finite(change.low):
        return f"{path}; one launch is too few to detect a change."
    ends = f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}] points"
    by = f"change: {100 * change.level:.0f} % CI {ends}, {units.counted(change.launches, 'launch')}"
    if change.low > 0:
        return f"it rises {path} ({by}): the loss grows with the number of ranks, as overhead does."
    if change.high < 0:
        return (
            f"it falls {path} ({by}): the loss grows less than a serial part would, so it is not one; part of it "
            "comes with the first ranks beyond the baseline."
        )
    limit = ""
    if last.serial_fraction.low > 0:
        limit = f" If it is serial, no number of ranks is more than {1 / last.serial_fraction.value:.1f} times as fast."
    return f"no change detected {path} ({by}): consistent with a serial part of fixed size.{limit}"
