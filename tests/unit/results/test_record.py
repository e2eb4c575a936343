"""Records: they come back as they were written, and anything else is rejected with the file and the field."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import overrides
from results import validate
from results.decode import decode
from results.launches import Launch, RankSamples
from results.memory import RankMemory, Search
from results.model import Model, Parameter
from results.parity import Parity
from results.record import RankEnd, Record, RecordError
from results.shown import cut, shown
from results.store import FolderBusy, RecordStore
from results.upgrade import SCHEMA_VERSION
from tests.fakes import cell, launch


@pytest.fixture
def record() -> Record:
    samples = [
        RankSamples([0.2, 0.1], [0.1, 0.1], [0.5], 0.5, [2.0, 1.0]),
        RankSamples([0.1, 0.3], [0.1, 0.2], [], 0.7, [2, 3]),
    ]
    return Record(
        cell_id="torch-s0-n2",
        sweep_id="sweep",
        config={"stage": 0},
        resolved={"global_batch": 8},
        environment={},
        status="ok",
        model=Model(
            "digits",
            "sample",
            1,
            10.0,
            [Parameter("w", [3, 4], True, 0), Parameter("b", [], True, -1)],
            0,
            "d",
            True,
            "ab",
        ),
        parity=Parity(2, 1e-7, 1e-6, 1e-3, [1.0], [1.0]),
        memory=[RankMemory({"params": 4, "grads": 8}, 5, 9)],
        launches=[Launch(0, "2026-01-01", {"total_s": 1.0}, samples)],
    )


def test_a_record_comes_back_as_it_was_written(record: Record, tmp_path: Path) -> None:
    record.write(tmp_path / "r.json")
    assert Record.read(tmp_path / "r.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_step_takes_as_long_as_its_slowest_rank(record: Record) -> None:
    assert record.launches[0].step_times_s() == pytest.approx([0.3, 0.5])


def test_the_final_loss_is_the_mean_over_ranks(record: Record) -> None:
    assert record.final_loss == 2.0
    assert record.model and record.model.parameter_count == 13
    assert record.memory[0].model_state_bytes == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("cell_id"), "field 'cell_id' is missing"),
        (lambda d: d.update(extra=1), "unknown field 'extra'"),
        (lambda d: d.update(status="fine"), "record.status: 'fine' is not one of ok, failed"),
        (lambda d: d["memory"][0].update(peak_bytes="9"), r"record.memory\[0\].peak_bytes: expected int, found str"),
        (lambda d: d["launches"][0]["ranks"][0].update(losses=[True]), r"losses\[0\]: expected float, found bool"),
        (lambda d: d.update(schema_version=0), "schema_version is 0; this version reads 1 to 4"),
    ],
)
def test_what_is_not_a_record_is_rejected_with_its_field(
    record: Record, tmp_path: Path, change: object, message: str
) -> None:
    document = json.loads(json.dumps(dataclasses.asdict(record)))
    change(document)  # type: ignore[operator]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match=message) as rejection:
        Record.read(path)
    assert str(path) in str(rejection.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema_version": 1}', "null", "\ud800".encode("utf-8", "surrogatepass")]
)
def test_a_damaged_file_is_rejected(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecordError):
        Record.read(path)


def test_a_folder_that_fails_costs_a_warning_and_no_record(record: Record, tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "sweep")
    (tmp_path / "sweep" / "records").rmdir()
    (tmp_path / "sweep" / "records").write_text("a file, not a folder")
    store.write(record)
    assert len(store.warnings) == 1
    assert Record.read(store.folder / "records" / "torch-s0-n2.json") == record


def test_a_damaged_record_counts_as_missing(record: Record, tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.write(record)
    (tmp_path / "records" / "other.json").write_text("{")
    assert list(store.existing()) == ["torch-s0-n2"]
    assert "other.json" in store.warnings[0]


def test_a_folder_is_one_sweeps_at_a_time(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    with pytest.raises(FolderBusy, match="another sweep is writing into"):
        RecordStore(tmp_path)
    del store
    RecordStore(tmp_path)


def test_an_error_shows_a_short_value_whole_and_the_beginning_of_one_without_end() -> None:
    assert shown("a 'word'") == "\"a 'word'\""
    assert (
        shown(list(range(1000)))
        == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 2..."
    )
    assert (cut("x" * 80), cut("x" * 81)) == ("x" * 80, "x" * 80 + "...")


def test_a_negative_count_of_an_engine_is_rejected() -> None:
    wrong = cell()
    wrong.config["engine"]["servers"] = -1
    with pytest.raises(RecordError, match=r"config\.engine\.servers is -1, expected a count"):
        validate.check(wrong)


def test_every_rejection_of_a_value_without_end_is_one_short_line(tmp_path: Path) -> None:
    endless = "x" * 10_000
    wrong = cell()
    wrong.config["precision"] = [endless]
    twice = tmp_path / "twice.json"
    twice.write_text(f'{{"{endless}": 1, "{endless}": 2}}')
    rejected: list[Callable[[], object]] = [
        lambda: overrides.check_overrides([f"stage={endless}"]),
        lambda: overrides.check_overrides([f"overlap={endless}"]),
        lambda: overrides.check_overrides([f"stage=[{endless}"]),
        lambda: validate.check(wrong),
        lambda: Record.read(twice),
        lambda: decode({endless: 1}, RankEnd, "rank"),
    ]
    for rejection in rejected:
        with pytest.raises(ValueError, match=r"x{70,80}'?\.\.\.") as error:
            rejection()
        assert len(str(error.value)) < 200 + len(str(tmp_path)), error.value


def test_a_record_of_version_1_is_read_without_its_incomplete_prediction(tmp_path: Path) -> None:
    document = dataclasses.asdict(cell())
    document["model"] |= document["model"].pop("step")
    del document["model"]["compute_memory"]
    document["model"]["activation_bytes"] = 1000
    document["schema_version"] = 1
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    record = Record.read(path)
    assert record.model is not None and record.model.compute_memory is None
    assert record.schema_version == SCHEMA_VERSION


def test_a_record_of_version_2_is_read_with_todays_names(tmp_path: Path) -> None:
    document = dataclasses.asdict(cell(verdicts=["not_steady", "throttled", "foreign_process"]))
    document |= {"schema_version": 2, "verdict_reasons": {"not_steady": "it drifted"}}
    document["search"] = {"limit_bytes": None, "granule": 2, "most": 64, "tried": []}
    document["failure"] = [{"rank": 0, "ending": "exit code 1", "last_words": "no space"}]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    record = Record.read(path)
    assert record.verdicts == ["drift", "throttled", "background_load"]
    assert record.verdict_reasons == {"drift": "it drifted"}
    assert record.search == Search(limit_bytes=None, multiple_of=2, max_batch=64)
    assert [end.last_output for end in record.failure] == ["no space"]


def test_a_record_of_version_3_is_read_with_todays_names_at_every_depth(tmp_path: Path) -> None:
    counters = {"foreign_cpu_s": 0.5, "gpu_foreign_processes": 1.0, "cpus": 2.0}
    document = dataclasses.asdict(cell(launches=[launch(0, [[0.1]])]))
    old_launch = document["launches"][0] | {"conditions": counters, "foreign": {"make": 0.5}}
    for name in ("background_processes", "background_processes_by_host"):
        del old_launch[name]
    old_launch |= {"conditions_by_host": [counters], "foreign_by_host": [{"make": 0.5}]}
    silent = {name: value for name, value in old_launch.items() if not name.endswith("_by_host")}
    document |= {"schema_version": 3, "launches": [old_launch], "attribution": {"silent": [silent]}}
    document["ceiling"] = {"flops_per_s": 1e9, "dtype": "float32", "size": 64, "conditions": counters}
    document["model"] |= document["model"].pop("step") | {"skipped": ["w"], "first_use": ".encode"}
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    record = Record.read(path)
    now = {"background_cpu_s": 0.5, "gpu_background_processes": 1.0, "cpus": 2.0}
    assert record.launches[0].of_hosts() == [(now, {"make": 0.5})]
    assert record.launches[0].background_processes == {"make": 0.5}
    assert record.attribution and record.attribution.silent[0].conditions == now
    assert record.ceiling and record.ceiling.conditions == now
    assert record.model and (record.model.step.skipped, record.model.step.first_use) == (["w"], ".encode")
