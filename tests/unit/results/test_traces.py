"""The trace files of a configuration, put together from its launches and checked when they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.read import NoRecords, load
from results.traces import MemoryTimeline, PhaseStart, RankTraces, TraceFile, TraceKind, Traces
from tests.fakes import cell


def file(rank: int, kind: TraceKind, name: str = "") -> TraceFile:
    return TraceFile(rank, kind, name or f"traces/cell.rank{rank}.{kind}", 10)


def timeline(rank: int, peak: int) -> MemoryTimeline:
    return MemoryTimeline(rank, 0.2, [PhaseStart("forward", 0.0)], [0.0, 0.1], {"params": [1, 1], "grads": [0, peak]})


def test_a_second_launch_adds_its_kinds_and_replaces_those_that_it_writes_again() -> None:
    first = Traces().joined([RankTraces([file(0, "memory")], {"snapshot": "full"}, timeline(0, 5))])
    both = first.joined([RankTraces([file(0, "steps")]), RankTraces([], {"steps": "full"})])
    assert [(one.rank, one.kind) for one in both.files] == [(0, "memory"), (0, "steps")]
    assert both.not_written == {"snapshot": "full", "steps": "full"}
    again = both.joined([RankTraces([file(0, "steps")]), RankTraces([file(1, "steps")])])
    assert [(one.rank, one.kind) for one in again.files] == [(0, "memory"), (0, "steps"), (1, "steps")]
    assert again.not_written == {"snapshot": "full"}


def test_the_timeline_is_that_of_the_rank_with_the_largest_peak() -> None:
    ranks = [RankTraces(timeline=timeline(rank, peak)) for rank, peak in enumerate((3, 9, 4))]
    shown = Traces().joined(ranks).timeline
    assert shown is not None and (shown.rank, shown.peak_bytes) == (1, 10)


@pytest.mark.parametrize("name", ["../records/x.json", "/etc/passwd", "traces/../x", "traces/a b", "traces/", "x.gz"])
def test_a_record_that_names_a_trace_file_elsewhere_is_not_read(name: str, tmp_path: Path) -> None:
    record = cell(traces=Traces([file(0, "steps", name)]))
    record.write(tmp_path / "record.json")
    with pytest.raises(NoRecords, match=r"traces\.files"):
        load([tmp_path / "record.json"])


def test_a_timeline_with_lists_of_different_lengths_is_not_read(tmp_path: Path) -> None:
    uneven = MemoryTimeline(0, 0.2, [], [0.0], {"params": [1, 1]})
    cell(traces=Traces(timeline=uneven)).write(tmp_path / "record.json")
    with pytest.raises(NoRecords, match=r"traces\.timeline"):
        load([tmp_path / "record.json"])
