"""The memory ledger in tables and words, on made-up records whose answer is known."""

from __future__ import annotations

from pathlib import Path

from analysis.metrics.memory import COUNTED, memory
from analysis.report.model.content import Content
from analysis.report.sections.memory import higher_stages, row
from bench.measure.memory.allocations import KINDS as MEASURED_KINDS
from results.memory import RankMemory
from results.model import ComputeMemory
from results.record import Record
from tests.fakes import cell, cnn_model, measured, write_report

MIB = 2**20
REPLICATED = {"params": 2 * MIB, "grads": 2 * MIB, "optimizer": 4 * MIB, "activations": MIB}
COMPUTE = ComputeMemory(10 * MIB, 100 * MIB, 1000 * MIB, 10_000 * MIB)
SHARDED = {"params": MIB, "grads": MIB, "optimizer": 2 * MIB, "gathered": 5 * MIB, "communication": MIB}


def with_peak(stage: int, peak: dict[str, int], phase: str = "backward", **changes: object) -> Record:
    record = cell(stage, 2, **changes)
    largest = RankMemory({"params": MIB}, MIB, sum(peak.values()), 30 * MIB, [], {"params": MIB}, peak, phase, 3 * MIB)
    record.memory = [RankMemory({"params": MIB}, 7, 9, None, [], {"other": 7}, {"other": 9}, "forward"), largest]
    return record


def words(*records: Record) -> list[str]:
    return higher_stages(Content(records))


def test_analysis_has_every_kind_that_is_measured() -> None:
    assert sorted(COUNTED) == sorted(MEASURED_KINDS)


def test_a_higher_stage_that_needs_more_is_explained_by_what_was_measured() -> None:
    (sentence,) = words(with_peak(2, REPLICATED, "update"), with_peak(3, SHARDED))
    assert sentence == (
        "2 ranks: stage 3 needs 1.00 MiB more at its peak than stage 2. It keeps 4.00 MiB less model state, "
        "but computation and communication take 5.00 MiB more. More: all-gathered parameters (+5.00 MiB) and "
        "communication buffers (+1.00 MiB). Less: optimizer state (-2.00 MiB), parameters (-1.00 MiB), gradients "
        "(-1.00 MiB) and activations (-1.00 MiB). It peaks in backward, stage 2 in update."
    )


def test_padding_of_a_higher_stage_is_seen_in_its_state() -> None:
    padded = REPLICATED | {"params": 3 * MIB}
    (sentence,) = words(with_peak(0, REPLICATED), with_peak(1, padded))
    assert "Its model state at that moment is 1.00 MiB larger. More: parameters (+1.00 MiB)." in sentence


def test_a_higher_stage_that_needs_less_needs_no_excuse() -> None:
    assert words(with_peak(0, SHARDED), with_peak(3, REPLICATED)) == []
    assert words(with_peak(0, REPLICATED), with_peak(3, SHARDED, engine={"name": "native"})) == []


def test_the_fullest_rank_is_shown_with_slack_and_what_the_driver_sees() -> None:
    (cell,) = Content([with_peak(2, REPLICATED)]).measured
    rest, phase, state, _, activations, temporaries, peak, _, reserved, outside = (value.text for value in row(cell))
    assert (rest, peak, state, activations, reserved) == ("1.00", "9.00", "8.00", "1.00", "21.0")
    assert (outside, phase, temporaries) == ("3.00", "backward", "0")


def test_the_predicted_peak_is_the_sum_of_its_parts_or_nothing() -> None:
    ledger = memory(with_peak(0, REPLICATED, model=cnn_model(compute_memory=COMPUTE)))
    assert ledger.predicted_bytes and ledger.working_bytes is not None
    assert ledger.peak_predicted_bytes == ledger.predicted_bytes + ledger.working_bytes + 11110 * MIB
    assert memory(with_peak(0, REPLICATED)).peak_predicted_bytes is None


def test_autocasts_copies_are_predicted_once() -> None:
    """They are what forward leaves for backward, so they are in the activations and not in what the engine needs."""
    model = {"model": cnn_model(compute_memory=COMPUTE)}
    assert memory(with_peak(0, REPLICATED, precision="amp_bf16", **model)).working_bytes == 0
    assert memory(with_peak(0, REPLICATED, precision="amp_bf16", **model)).transient_bytes


def test_the_report_has_the_ledger_and_leaves_out_what_was_not_taken_apart(tmp_path: Path) -> None:
    paths = write_report([with_peak(2, REPLICATED), with_peak(3, SHARDED)], tmp_path / "new", drawn=False)
    for file in (paths.html, paths.markdown):
        text = file.read_text(encoding="utf-8")
        assert "Memory of a step" in text and "needs 1.00 MiB more at its peak than stage 2" in text
    old = write_report([measured(cell(2, 2))], tmp_path / "old", drawn=False)
    assert "gathered and communicated" not in old.html.read_text(encoding="utf-8")
