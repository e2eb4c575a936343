"""Whether the loader is the bottleneck, in words, and how long steps wait for their batches."""

from __future__ import annotations

from analysis.metrics.data_wait import LIMIT, DataWait
from analysis.metrics.measured import Measured
from analysis.report.model.content import Content
from analysis.report.model.section import Section, Value, numbers, words
from analysis.statistics.medians import Interval
from analysis.table.panels import describe
from analysis.text import units

MOST_SENTENCES = 3
"""Configurations that the first screen has a sentence for."""
COLUMNS = (
    numbers("wait for data (ms)", "of the step", "loader alone (/s)", "with data=pool"),
    words("bottleneck"),
)
SERIAL = " With loader.workers=0 reading adds to each step; set loader.workers=1 or more."
UNDECIDED = "One launch leaves no interval, so repeats of at least 2 are needed to decide whether the loader is"
VERDICTS = {True: "is the bottleneck", False: "is not the bottleneck", None: "may be the bottleneck"}


def section(content: Content) -> Section:
    """A row for each configuration with a DataLoader."""
    return Section(
        "Input pipeline",
        "input-pipeline",
        tables=content.cell_table(_cells(content), row, *COLUMNS),
        notes=[
            "Wait for data: mean over steps, of the rank that waits longest. Loader alone: what all ranks together "
            "read per second while none trains. One launch leaves no interval and decides nothing.",
            "With data=pool: its throughput over this one's, paired by round. The loader is a bottleneck if more than "
            f"{units.percent(LIMIT)} of the throughput is lost: by that ratio, else by the share of waiting. "
            f"{content.intervals}",
            *_cores(_cells(content)),
        ],
    )


def sentences(content: Content) -> list[str]:
    """The answer for each configuration with a DataLoader, those that wait longest first."""
    cells = sorted(_cells(content), key=lambda cell: -_waited(cell).share.value)
    answers = [sentence(describe(cell.settings, content.names), cell) for cell in cells[:MOST_SENTENCES]]
    more = len(cells) - len(answers)
    return answers + ([f"{units.counted(more, 'more configuration')} with data=loader: in the report."] if more else [])


def sentence(name: str, cell: Measured) -> str:
    """Whether the loader is the bottleneck of one configuration, and by how much."""
    waited = _waited(cell)
    share, ratio = waited.share, waited.over_pool
    wait = f"ranks wait {units.percent(share.value)}{_level(share, percent=True)} of a step for data"
    alone, trained = waited.loader_per_s, cell.throughput_per_s.value
    if units.is_finite(alone / trained):
        wait += f", and the loader alone reads {units.number(alone / trained)} times what they train on"
    load = ", under background load" if "background_load" in cell.warnings else ""
    remedy = SERIAL if waited.is_bottleneck and not _workers(cell) else ""
    pool = f"with data=pool, throughput is {units.number(ratio.value)} times as high{_level(ratio)}" if ratio else ""
    if pool and waited.is_bottleneck and share.value <= LIMIT:
        cause = ". Its processes share cores with the ranks" if cell.is_oversubscribed and _workers(cell) else ""
        return f"The loader slows {name}{load}, though {wait}: {pool}{cause}.{remedy}"
    numbers_seen = "; ".join(filter(None, [wait, pool]))
    if waited.lost is None:
        return f"{UNDECIDED} the bottleneck of {name}{load}: {numbers_seen}."
    return f"The loader {VERDICTS[waited.is_bottleneck]} of {name}{load}: {numbers_seen}.{remedy}"


def row(cell: Measured) -> list[Value]:
    waited = _waited(cell)
    ratio = waited.over_pool
    ends = units.interval(ratio.low, ratio.high) if ratio else ""
    return [
        Value(units.ms(waited.seconds.value), units.interval(waited.seconds.low, waited.seconds.high, 1e3)),
        Value(units.percent(waited.share.value), units.interval(100 * waited.share.low, 100 * waited.share.high)),
        Value(units.number(waited.loader_per_s)),
        Value(f"{units.number(ratio.value)} x" if ratio else units.MISSING, ends),
        Value({True: "yes", False: "no", None: "undecided" if waited.lost else "one launch"}[waited.is_bottleneck]),
    ]


def _cells(content: Content) -> list[Measured]:
    return content.where(lambda cell: cell.data_wait is not None)


def _waited(cell: Measured) -> DataWait:
    assert cell.data_wait, "a configuration with a DataLoader"
    return cell.data_wait


def _workers(cell: Measured) -> int:
    """Processes per rank that read."""
    return int((cell.record.config.get("loader") or {}).get("workers") or 0)


def _cores(cells: list[Measured]) -> list[str]:
    """What the ratio leaves out: ``threads=null`` takes the cores of the loader from ``data=pool`` too."""
    shared = [cell for cell in cells if cell.record.config.get("threads") is None and not cell.is_oversubscribed]
    compared = [cell for cell in shared if _waited(cell).over_pool]
    workers = max(map(_workers, cells), default=0)
    if not compared or not workers:
        return []
    threads = ", ".join(map(str, sorted({int(cell.record.resolved["threads"]) for cell in compared})))
    return [
        f"Both run with threads={threads}, which leaves {units.counted(workers, 'core')} per rank to the loader; "
        "set threads to see the cost of cores."
    ]


def _level(interval: Interval, *, percent: bool = False) -> str:
    factor = 100 if percent else 1
    ends = units.interval(interval.low * factor, interval.high * factor)
    unit = " %" if percent else ""
    return f" ({units.percent(interval.level)} CI {ends}{unit})" if ends else ""
