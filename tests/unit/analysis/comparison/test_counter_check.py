"""The counter check on records with known differences: each is reported, attributed, and accepted only on request."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.comparison import counter_check
from analysis.comparison.counter_check import CounterDifference, GateError, accept, differences, exit_code, measured
from analysis.comparison.exact_quantities import libraries, name, quantities
from results.launches import Collective
from results.memory import RankMemory
from results.parity import Parity
from results.record import Record
from tests.fakes import bare, cell, launch, write_all

GOOD = Parity(3, 1e-7, 1e-7, 1e-3, [1.0], [1.0])


def exact_cell(
    engine: str = "native", stage: int = 0, library: str = "native, torch 2.15.0", **changes: object
) -> Record:
    record = cell(stage, 2, [launch(0, [[0.01]] * 2)], engine={"name": engine}, **changes)
    record.resolved["engine"] = {"library": library, "buckets": 3, "bucket_mb": 25.0}
    record.parity = GOOD
    state = {"params": 100, "grads": 100, "optimizer": 200}
    record.memory = [RankMemory(state, 420, 600, step_peaks_bytes=[600, 640, 600]) for _ in range(2)]
    record.collectives = [Collective("all_reduce", "float32", 100, 2, 3)]
    return record


def night() -> list[Record]:
    """Two cells of native, one of DeepSpeed, and one that DeepSpeed rejects."""
    return [
        exact_cell(stage=0),
        exact_cell(stage=3),
        exact_cell("deepspeed", 1, "deepspeed 0.19.8"),
        bare("unsupported", "engine=deepspeed has no overlap=true", 2, 2, engine={"name": "deepspeed"}),
    ]


def differences_after(change: Callable[[list[Record]], object]) -> list[CounterDifference]:
    """What the gate says after ``change`` was made to the second of two equal nights."""
    now = copy.deepcopy(night())
    change(now)
    return differences(measured(night()), measured(now))


def words(differences: list[CounterDifference]) -> list[tuple[str, object, object]]:
    return [(difference.quantity, difference.before, difference.now) for difference in differences]


def test_two_equal_nights_have_no_difference() -> None:
    assert differences_after(lambda now: None) == []
    assert exit_code([]) == 0


def test_a_cell_that_holds_nothing_would_pass_anything() -> None:
    kinds = {key.partition(":")[0] for key in quantities(exact_cell())}
    assert kinds >= {"status", "parity", "launches", "state", "at rest, bytes", "peak, bytes", "model", "engine"}
    assert {"all_reduce float32[100] among 2", "sent by a rank, bytes"} <= kinds


def one_more_collective(now: list[Record]) -> None:
    now[0].collectives = [Collective("all_reduce", "float32", 100, 2, 4)]


def another_dtype(now: list[Record]) -> None:
    now[0].collectives = [Collective("all_reduce", "bfloat16", 100, 2, 3)]


def one_rank_calls_more(now: list[Record]) -> None:
    calls = [Collective("all_reduce", "float32", 100, 2, 3)]
    now[0].collectives_by_rank = [calls, [*calls, Collective("broadcast", "int64", 1, 2, 1)]]


def more_state(now: list[Record]) -> None:
    now[0].memory = [replace(rank, state_bytes=rank.state_bytes | {"optimizer": 204}) for rank in now[0].memory]


def more_at_peak(now: list[Record]) -> None:
    now[0].memory[1] = replace(now[0].memory[1], step_peaks_bytes=[640, 640, 640])


def fewer_buckets(now: list[Record]) -> None:
    now[0].resolved["engine"]["buckets"] = 2


def one_more_launch(now: list[Record]) -> None:
    now[0].launches.append(now[0].launches[0])


def lost_parity(now: list[Record]) -> None:
    now[0].parity, now[0].status = replace(GOOD, weights_error=0.3), "parity_failed"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            one_more_collective,
            [
                ("all_reduce float32[100] among 2", 3, 4),
                ("collectives in a step", 3, 4),
                ("sent by a rank, bytes", 1200, 1600),
            ],
        ),
        (
            another_dtype,
            [
                ("all_reduce float32[100] among 2", 3, None),
                ("sent by a rank, bytes", 1200, 600),
                ("all_reduce bfloat16[100] among 2", None, 3),
            ],
        ),
        (
            one_rank_calls_more,
            [
                ("collectives in a step", 3, "3 | 4"),
                ("sent by a rank, bytes", 1200, 1202),
                ("broadcast int64[1] among 2", None, "0 | 1"),
            ],
        ),
        (more_state, [("state: optimizer, bytes", 200, 204)]),
        (more_at_peak, [("peak, bytes", 600, "600 | 640")]),
        (fewer_buckets, [("engine: buckets", 3, 2)]),
        (one_more_launch, [("launches", 1, 2)]),
        (lost_parity, [("status", "ok", "parity_failed"), ("parity", "passed", "failed")]),
    ],
)
def test_each_change_is_found_alone_and_is_the_codes(
    change: Callable[[list[Record]], None], expected: list[tuple[str, object, object]]
) -> None:
    seen = differences_after(change)
    assert sorted(words(seen), key=str) == sorted(expected, key=str)
    assert {difference.cell for difference in seen} == {"native stage 0, 2 ranks, digits fp32"}
    assert exit_code(seen) == 1


def release_late(record: Record) -> None:
    """In two of three steps gloo freed a bucket later than usual."""
    record.memory[1] = replace(record.memory[1], peak_bytes=700, step_peaks_bytes=[700, 700, 600])


def test_a_step_whose_memory_was_freed_late_is_no_difference() -> None:
    assert differences_after(lambda now: release_late(now[0])) == []


def test_where_late_is_usual_what_collectives_hold_at_rest_is_left_out() -> None:
    def late(now: list[Record]) -> None:
        release_late(now[2])
        kinds = {"communication": 64, "params": 420}
        now[2].memory[1] = replace(now[2].memory[1], rest_bytes=484, rest_by_kind=kinds)

    assert differences_after(late) == []


def test_a_communication_buffer_that_stays_is_detected() -> None:
    def more(now: list[Record]) -> None:
        kinds = {"communication": 64, "params": 420}
        now[0].memory = [replace(rank, rest_bytes=484, rest_by_kind=kinds) for rank in now[0].memory]

    assert words(differences_after(more)) == [("at rest, bytes", 420, 484)]


def test_a_peak_that_differs_from_run_to_run_is_not_compared_with_a_note() -> None:
    now = measured([exact_cell("torch", 3, "torch 2.15.0"), exact_cell("torch", 1, "torch 2.15.0")])
    has_peak = {name: "peak, bytes" in cell for name, cell in now.cells.items()}
    assert list(has_peak.values()) == [True, False]
    assert any("peak not held" in line and "torch stage 3" in line for line in counter_check.notes(now, now))


def test_missing_and_new_cells_have_different_words() -> None:
    missing = differences_after(lambda now: now.pop(0))
    assert [(difference.what, exit_code([difference])) for difference in missing] == [("missing", 1)]
    new = differences_after(lambda now: now.append(exact_cell(stage=2)))
    assert [(difference.what, exit_code([difference])) for difference in new] == [("new", 1)]


def upgraded(record: Record) -> None:
    record.resolved["engine"] |= {"library": "deepspeed 0.20.0", "bucket_mb": 8.0}


def test_another_version_of_a_library_is_not_taken_for_our_code() -> None:
    seen = differences_after(lambda now: upgraded(now[2]))
    assert [difference.libraries for difference in seen] == ["deepspeed 0.19.8 -> 0.20.0"]
    assert exit_code(seen) == 3


def test_another_version_hides_no_difference_of_an_engine_that_does_not_use_it() -> None:
    def both(now: list[Record]) -> None:
        upgraded(now[2])
        fewer_buckets(now)

    seen = differences_after(both)
    assert [bool(difference.libraries) for difference in seen] == [True, False]
    assert exit_code(seen) == 1


def test_torch_counts_for_every_engine() -> None:
    def other_torch(now: list[Record]) -> None:
        for record in now:
            record.environment["torch"] = "2.16.0"
        fewer_buckets(now)

    assert exit_code(differences_after(other_torch)) == 3


def without_deepspeed(now: list[Record]) -> None:
    now[2] = bare("unavailable", "engine=deepspeed needs deepspeed", 1, 2, engine={"name": "deepspeed"})


def test_an_engine_that_cannot_run_here_is_no_fault_of_the_code() -> None:
    seen = differences_after(without_deepspeed)
    assert words(seen) == [("status", "ok", "unavailable")]
    assert exit_code(seen) == 3


def test_an_engine_that_fails_is_not_taken_for_one_that_is_not_installed() -> None:
    def broken(now: list[Record]) -> None:
        now[2] = bare("failed", "rank 0: ImportError", 1, 2, engine={"name": "deepspeed"})

    assert exit_code(differences_after(broken)) == 1


def test_an_engine_that_neither_side_has_is_no_difference() -> None:
    absent = bare("unavailable", "engine=horovod needs horovod", 0, 2, engine={"name": "horovod"})
    rejected = bare("unsupported", "engine=horovod has no stage=1", 1, 2, engine={"name": "horovod"})
    assert differences_after(lambda now: now.extend([absent, rejected])) == []


def test_another_experiment_is_reported_once_and_a_new_setting_is_no_difference() -> None:
    def another(now: list[Record]) -> None:
        for record in now:
            record.config |= {"batch_size": 128, "new_setting": True}

    assert [(d.cell, d.quantity, d.before, d.now) for d in differences_after(another)] == [
        ("all cells", "batch_size", 64, 128)
    ]


def test_a_name_has_the_settings_beyond_the_usual() -> None:
    record = exact_cell(bucket_mb=0.02, accumulate=2)
    assert name(record) == "native stage 0, 2 ranks, digits fp32, bucket_mb=0.02, accumulate=2"


def test_the_same_cell_twice_is_rejected() -> None:
    with pytest.raises(GateError, match="two configurations are native stage 0, 2 ranks, digits fp32"):
        measured([exact_cell(), exact_cell()])


def test_versions_are_those_of_torch_and_of_the_engines_own_library() -> None:
    assert libraries(night()) == {
        "native": {"torch": "2.15.0"},
        "deepspeed": {"torch": "2.15.0", "deepspeed": "0.19.8"},
    }


def test_no_baseline_holds_what_did_not_end_well() -> None:
    now = night()
    lost_parity(now)
    with pytest.raises(GateError, match="parity_failed"):
        accept(None, measured(now, "why not"))


def test_accepting_keeps_what_cannot_be_measured_here() -> None:
    now = copy.deepcopy(night())
    without_deepspeed(now)
    fewer_buckets(now)
    old = measured(night())
    new = accept(old, measured(now, "two buckets"))
    assert {cell for cell in old.cells if old.cells[cell] != new.cells[cell]} == {
        "native stage 0, 2 ranks, digits fp32"
    }
    assert new.libraries == old.libraries


def test_the_command_finds_names_the_way_to_accept_and_accepts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "reference" / "exact.json"
    before = ["gate", str(write_all(night(), tmp_path / "a")), "--baseline", str(baseline)]
    assert main(before) == 2
    assert "no baseline" in capsys.readouterr().err
    assert main([*before, "--accept", "the first"]) == 0
    assert main(before) == 0
    assert "4 configurations" in capsys.readouterr().out

    now = night()
    fewer_buckets(now)
    after = ["gate", str(write_all(now, tmp_path / "b")), "--baseline", str(baseline)]
    assert main(after) == 1
    printed = capsys.readouterr().out
    assert "engine: buckets" in printed and f"python -m analysis {' '.join(after)} --accept" in printed
    first = baseline.read_text()
    assert main([*after, "--accept", "two buckets do"]) == 0
    changed = [line for line in baseline.read_text().splitlines() if line not in first.splitlines()]
    assert changed == [' "reason": "two buckets do",', '    "engine: buckets": 2,']
    assert main(after) == 0


def test_accepting_what_is_the_same_changes_no_file(tmp_path: Path) -> None:
    baseline = tmp_path / "exact.json"
    command = ["gate", str(write_all(night(), tmp_path / "a")), "--baseline", str(baseline), "--accept"]
    main([*command, "the first"])
    before = baseline.read_text()
    assert main([*command, "another reason"]) == 0
    assert baseline.read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", json.dumps({"version": 2}), '{"version": 1, "reason": "", "libraries": {}, "settings": {}}'),
        '{"version": 1, "reason": "", "libraries": [], "settings": {}, "cells": {}}',
        '{"version": 1, "reason": "", "libraries": {"native": null}, "settings": {}, "cells": {}}',
        '{"version": 1, "reason": "", "libraries": {}, "settings": null, "cells": {}}',
    ],
)
def test_a_file_that_is_no_baseline_is_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = tmp_path / "exact.json"
    baseline.write_text(text)
    assert main(["gate", str(write_all(night(), tmp_path / "a")), "--baseline", str(baseline)]) == 2
    assert str(baseline) in (message := capsys.readouterr().err) and message.count("\n") == 1


def test_a_reason_is_required(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["gate", str(tmp_path), "--baseline", "x.json", "--accept", " "])
    assert "why the numbers changed" in capsys.readouterr().err
