"""A record whose numbers contradict each other has a warning that names the invariant and both numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from analysis.table.frame import frame
from bench.measure.verdicts import disturbances
from results.invariants import INVARIANTS, least_sent_bytes, violations
from results.launches import Ceiling, Collective, Launch, RankSamples
from results.memory import RankMemory
from results.record import Record
from tests.fakes import cell, cnn_model, launch

GRADIENTS = cnn_model().parameter_count


def sound() -> Record:
    """Two ranks of native DDP with Adam, over fp32 gradients."""
    record = cell(0, 2, [launch(at, [[0.01] * 4] * 2) for at in range(3)], model=cnn_model(flops_per_unit=1e6))
    state = {"params": 400, "master": 0, "grads": 400, "optimizer": 800, "buffers": 0}
    record.memory = [RankMemory(state, rest_bytes=1600, peak_bytes=2000)] * 2
    record.collectives = [Collective("all_reduce", "float32", GRADIENTS, 2, 1)]
    record.ceiling = Ceiling(1e10, "float32", 512)
    record.launches = [
        dataclasses.replace(at, ranks=[dataclasses.replace(rank, wall_s=sum(rank.step_times_s())) for rank in at.ranks])
        for at in record.launches
    ]
    return record


def memory(record: Record, **changes: int) -> None:
    record.memory = [record.memory[0], dataclasses.replace(record.memory[1], **changes)]


def half_the_gradients(record: Record) -> None:
    record.collectives = [Collective("all_reduce", "float32", GRADIENTS // 2, 2, 1)]


def slow_ceiling(record: Record) -> None:
    record.ceiling = Ceiling(1e9, "float32", 512)


def short_wall(record: Record) -> None:
    ranks: list[RankSamples] = [dataclasses.replace(rank, wall_s=0.02) for rank in record.launches[0].ranks]
    launches: list[Launch] = [dataclasses.replace(record.launches[0], ranks=ranks), *record.launches[1:]]
    record.launches = launches


BREAKS: dict[str, tuple[Callable[[Record], None], str]] = {
    "peak >= rest": (lambda record: memory(record, rest_bytes=2001), "rank 1 has 2000 bytes at the peak, 2001 at rest"),
    "peak >= model state": (lambda record: memory(record, peak_bytes=1599, rest_bytes=1590), "1599 bytes at the peak"),
    "rest >= optimizer state": (lambda record: memory(record, rest_bytes=799), "rank 1 has 799 bytes at rest, 800 of"),
    "bytes >= least": (half_the_gradients, "needs at least"),
    "MFU within reason": (slow_ceiling, "above 120%"),
    "wall time >= steps": (short_wall, "steps of round 0 add up to 0.04 s, taken in 0.02 s"),
}


def test_a_sound_record_breaks_none() -> None:
    assert violations(sound()) == {}
    assert least_sent_bytes(sound()) == 4 * GRADIENTS


def test_replicas_of_shards_on_several_hosts_have_no_such_least() -> None:
    record = sound()
    record.config["shard_size"] = 0
    assert least_sent_bytes(record) == 4 * GRADIENTS
    record.resolved["hosts"] = [{"name": name, "ranks": 2} for name in ("a", "b")]
    assert least_sent_bytes(record) is None


def test_every_invariant_has_a_record_that_breaks_it() -> None:
    assert BREAKS.keys() == INVARIANTS.keys()


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_invariant_alone_is_named_with_its_numbers(name: str) -> None:
    record = sound()
    change, words = BREAKS[name]
    change(record)
    assert list(violations(record)) == [name]
    reason = disturbances(record)["implausible"]
    assert reason.startswith(f"{name}: ") and words in reason


def test_efficiency_far_beyond_linear_is_a_warning_of_the_table() -> None:
    worlds = [cell(0, ranks, [launch(at, [[step] * 4] * ranks) for at in range(6)]) for ranks, step in SPEEDS]
    table = frame(worlds)
    assert list(table["verdicts"].str.contains("implausible")) == [False, False, True]
    assert "scaling efficiency is 178%" in table["verdict_reasons"].iloc[-1]


SPEEDS = ((1, 0.0178), (2, 0.0178), (4, 0.0100))
"""Ranks, and seconds per step under weak scaling."""
