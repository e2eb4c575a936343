"""The memory of a step over time, on a step whose bytes at every moment are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.measure.memory import over_time
from bench.measure.memory.allocations import Event, Reader, Trace

MS = 1_000_000


def made_up() -> Trace:
    """100 bytes of parameters, 50 more from 1 ms to 7 ms, 7 from 3 to 5 ms; the step begins at 10 ms of the clock."""
    return Reader().read(
        [
            Event(9 * MS, "allocate", 1, 100),
            Event(10 * MS, "begin"),
            Event(10 * MS, "label", 1, kind="params"),
            Event(10 * MS, "forward"),
            Event(11 * MS, "allocate", 2, 50),
            Event(12 * MS, "node"),
            Event(13 * MS, "allocate", 3, 7, in_backward=True),
            Event(15 * MS, "release", 3, 7),
            Event(16 * MS, "update"),
            Event(17 * MS, "release", 2, 50),
            Event(18 * MS, "end"),
        ]
    )


def test_each_interval_has_the_bytes_of_its_largest_moment() -> None:
    trace = made_up()
    timeline = over_time.timeline(trace, trace.steps[0], rank=3)
    assert (timeline.rank, timeline.duration_s, timeline.peak_bytes) == (3, 0.008, trace.steps[0].peak_bytes)
    assert timeline.times_s == [0.0, 0.001, 0.003, 0.005, 0.007]
    assert timeline.bytes_by_kind == {
        "params": [100] * 5,
        "activations": [0, 50, 50, 50, 0],
        "temporaries": [0, 0, 7, 0, 0],
    }
    assert [(one.phase, one.at_s) for one in timeline.phases] == [
        ("forward", 0.0),
        ("backward", 0.002),
        ("update", 0.006),
    ]


def test_few_samples_keep_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_time, "SAMPLES", 2)
    trace = made_up()
    timeline = over_time.timeline(trace, trace.steps[0], rank=0)
    assert len(timeline.times_s) == 2 and timeline.peak_bytes == 157


def test_the_file_has_every_change_as_a_counter_of_its_kind_and_of_the_total(tmp_path: Path) -> None:
    trace, path = made_up(), tmp_path / "memory.json"
    over_time.write_counters(trace, trace.steps[0], 0, path)
    events = json.loads(path.read_text())["traceEvents"]
    totals = [(event["ts"], event["args"]["bytes"]) for event in events if event["name"] == "total"]
    assert totals == [(0, 100), (1000, 150), (3000, 157), (5000, 150), (7000, 100)]
    spans = {event["name"]: (event["ts"], event["dur"]) for event in events if event["ph"] == "X"}
    assert spans == {"forward": (0, 2000), "backward": (2000, 4000), "update": (6000, 2000)}
