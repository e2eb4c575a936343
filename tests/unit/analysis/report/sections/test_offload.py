"""Offload in the report, on made-up records whose answer is known."""

from __future__ import annotations

from dataclasses import replace

from analysis.report.model.content import Content
from analysis.report.sections.offload import SAME_MEMORY, section
from results.memory import RankMemory
from results.record import Record
from tests.fakes import cell, launch

MIB = 2**20
NONE = RankMemory({"params": 4 * MIB, "optimizer": 8 * MIB}, 12 * MIB, 16 * MIB)
OFFLOADED = replace(
    NONE,
    state_bytes={"params": 4 * MIB},
    peak_bytes=20 * MIB,
    host_state_bytes={"master": 4 * MIB, "optimizer": 8 * MIB},
    copied_to_host_bytes=3 * MIB,
    copied_to_device_bytes=5 * MIB,
)


def with_memory(memory: RankMemory, offload: str, *, same: bool = True, rounds: int = 1) -> Record:
    """Each round is slower than the one before; a step is twice as long with offload."""
    step_s = 0.01 if offload == "none" else 0.02
    launches = [launch(at, [[step_s * (1 + at)] * 4] * 2) for at in range(rounds)]
    record = cell(1, 2, launches, engine={"name": "unpredicted"})
    record.config["offload"] = offload
    record.memory = [memory]
    for rank in (rank for each in launches for rank in each.ranks):
        update_s = 0.001 if offload == "none" else 0.003
        rank.forward_backward_s[:] = [step_s - update_s for step_s in rank.forward_backward_s]
        rank.optimizer_s[:] = [update_s] * len(rank.optimizer_s)
    if offload != "none":
        record.resolved["engine"] = {"offload": offload, "host_is_device": same}
    return record


def test_both_sides_and_copies_are_shown_and_compared_with_none() -> None:
    made = section(Content([with_memory(NONE, "none"), with_memory(OFFLOADED, "optimizer")]))
    (row,) = made.tables[0].rows
    assert [value.text for value in row.values[-6:]] == ["4.00", "12.0", "3.00", "5.00", "3.00", "20.0"]
    (line,) = made.lists[0].points
    assert "8.00 MiB less model state on the device, a peak that is 4.00 MiB higher" in line.text
    assert "a step that takes 2.00 times as long, an update that takes 3.00 times as long" in line.text
    assert made.prose == [SAME_MEMORY]


def test_steps_are_compared_round_by_round_and_equal_peaks_are_the_same() -> None:
    same = replace(OFFLOADED, peak_bytes=NONE.peak_bytes)
    made = section(Content([with_memory(NONE, "none", rounds=6), with_memory(same, "optimizer", rounds=6)]))
    (line,) = made.lists[0].points
    assert "the same peak, a step that takes 2.00 times as long (95 % CI [2.00, 2.00])" in line.text


def test_a_gpu_is_not_said_to_share_its_memory() -> None:
    assert section(Content([with_memory(OFFLOADED, "optimizer", same=False)])).prose == []


def test_without_offload_there_is_no_section() -> None:
    assert section(Content([with_memory(NONE, "none")])).is_empty
