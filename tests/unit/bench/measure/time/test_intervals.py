"""Arithmetic of intervals against a grid, and against the maintained library that reads such traces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.time.intervals import Interval, Intervals, difference, intersection, total, union

pairs = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12)


def grid(*sets: list[Interval]) -> set[int]:
    """The whole numbers that lie in any of the intervals."""
    return {at for intervals in sets for begin, end in intervals for at in range(begin, end)}


def is_merged(intervals: Intervals) -> bool:
    edges = [edge for interval in intervals for edge in interval]
    return edges == sorted(set(edges))


@given(pairs, pairs)
def test_sets_of_time_are_sets(some: list[Interval], others: list[Interval]) -> None:
    one, other = union(some), union(others)
    for result, expected in (
        (one, grid(some)),
        (union(some, others), grid(some, others)),
        (intersection(one, other), grid(some) & grid(others)),
        (difference(one, other), grid(some) - grid(others)),
    ):
        assert grid(result) == expected
        assert total(result) == len(expected)
        assert is_merged(result)


@given(pairs, pairs)
def test_a_set_is_what_it_shares_and_what_it_does_not(some: list[Interval], others: list[Interval]) -> None:
    one, other = union(some), union(others)
    assert total(one) == total(intersection(one, other)) + total(difference(one, other))
    assert union(intersection(one, other), difference(one, other)) == one


Kernel = tuple[str, int, int]
"""Stream's name, begin and duration in µs."""
TRACES: dict[str, tuple[list[Kernel], float]] = {
    "none": ([("comm", 0, 100), ("compute", 100, 100)], 0.0),
    "all": ([("comm", 50, 100), ("compute", 0, 200)], 1.0),
    "half": ([("comm", 0, 100), ("compute", 50, 200)], 0.5),
    "nested and repeated": (
        [*[("comm", 0, 100), ("comm", 20, 30), ("comm", 300, 100)], *[("compute", 90, 60), ("compute", 320, 30)]],
        0.2,
    ),
}


def write_trace(kernels: list[Kernel], file: Path) -> None:
    """A chrome trace as torch's profiler writes it, each kernel with the call that launched it."""
    names = {"comm": "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevComm*)", "compute": "ampere_sgemm_128x64_nn"}
    events: list[dict[str, Any]] = [
        {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#1", "pid": 1, "tid": 1, "ts": 1000, "dur": 900}
    ]
    for number, (kind, begin, duration) in enumerate(kernels, 1):
        arguments = {"correlation": number, "External id": number}
        stream = 7 if kind == "compute" else 20
        place = {"pid": 1, "tid": 1, "ts": 1000 + begin, "dur": 1}
        events += [
            {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "args": {"External id": number}, **place},
            {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "args": arguments, **place},
            {
                **{"ph": "X", "cat": "kernel", "name": names[kind], "pid": 0, "tid": stream},
                **{"ts": 1000 + begin, "dur": duration, "args": arguments | {"stream": stream, "device": 0}},
            },
        ]
    trace = {"schemaVersion": 1, "distributedInfo": {"rank": 0, "world_size": 1}, "traceEvents": events}
    file.write_text(json.dumps(trace))


def overlap(kernels: list[Kernel]) -> float:
    """|comm ∩ compute| / |comm|."""
    comm, compute = (
        union((begin, begin + duration) for kind, begin, duration in kernels if kind == wanted)
        for wanted in ("comm", "compute")
    )
    return total(intersection(comm, compute)) / total(comm)


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_of_known_overlap_has_it(name: str) -> None:
    kernels, expected = TRACES[name]
    assert overlap(kernels) == expected


@pytest.mark.parametrize("name", TRACES)
def test_overlap_is_that_of_holistic_trace_analysis(name: str, tmp_path: Path) -> None:
    analysis = pytest.importorskip("hta.trace_analysis", reason="needs the dependency group verify")
    kernels, _ = TRACES[name]
    write_trace(kernels, tmp_path / "rank0.json")
    trace = analysis.TraceAnalysis(trace_files={0: str(tmp_path / "rank0.json")}, include_last_profiler_step=True)
    theirs = trace.get_comm_comp_overlap(visualize=False)["comp_comm_overlap_pctg"][0]
    assert theirs == pytest.approx(100 * overlap(kernels), abs=0.01)
