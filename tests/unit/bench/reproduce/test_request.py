"""What reproduce= accepts: the cell as it was resolved, nothing that changes it, no code that only a record names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.groups import group_files
from bench.plan.cell import Cell
from bench.reproduce import request
from bench.reproduce.request import CannotReproduce, chosen, config_of, fetch, overrides
from results import mlflow_store
from results.host_settings import Cluster
from results.read import Loaded
from results.record import NO_ENGINE, Record
from results.settings import Config, Tracking
from tests.fakes import cell


@pytest.fixture
def recorded(make_cell: Callable[..., Cell]) -> Callable[..., Record]:
    """The record that a sweep would begin for a tiny cell, with changes to its configuration."""

    def make(**changes: Any) -> Record:
        cell = make_cell(stage=2, gpus=2, repeats=4)
        config = dataclasses.asdict(cell.config) | changes
        del config["tracking"], config["reproduce"]
        return Record(cell.id, "sweep", config, cell.resolved(), {})

    return make


def test_the_cell_is_run_as_it_was_resolved(recorded: Callable[..., Record], make_cell: Callable[..., Cell]) -> None:
    record = recorded()
    record.resolved |= {"threads": 5}
    config = config_of(record)
    assert (config.stage, config.gpus, config.repeats, config.workload["name"]) == (2, 2, 4, "digits")
    assert (config.device, config.backend, config.threads) == ("cpu", "gloo", 5)


def test_how_it_is_measured_can_be_changed(recorded: Callable[..., Record]) -> None:
    settings = Config(repeats=1, tracking=Tracking(kind="none"))
    words = ["repeats=1", "tracking=none", "hydra.run.dir=x"]
    assert chosen(config_of(recorded()), settings, overrides(words)).repeats == 1
    unsaid = chosen(config_of(recorded()), settings, overrides([]))
    assert (unsaid.repeats, unsaid.tracking.kind) == (4, "none")


@pytest.mark.parametrize(
    "word", ["stage=1", "engine=torch", "measure=time", "seed=1", "experiment=smoke", "resume=true"]
)
def test_what_would_make_another_cell_is_rejected_by_its_name(word: str) -> None:
    with pytest.raises(CannotReproduce, match=f"{word} would make it another configuration") as rejection:
        request.check_arguments(["reproduce=a.json", word])
    assert "\n" not in str(rejection.value)


def test_a_record_is_not_swept() -> None:
    assert request.is_reproduction(["-m", "reproduce=a.json"]) and not request.is_reproduction(
        ["reproduce=null", "stage=1"]
    )
    with pytest.raises(CannotReproduce, match="leave out -m"):
        request.check_arguments(["-m", "reproduce=a.json"])
    request.check_arguments(["reproduce=a.json", "repeats=2", "tracking.uri=sqlite:///x.db", "hydra.run.dir=y"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warp": 9}, "config: unknown field 'warp'"),
        ({"stage": 7}, "stage=7 is not valid"),
        ({"gpus": "two"}, "config.gpus: expected int, found str"),
        ({"workload": {"name": "digits", "factory": ""}}, "workload.factory is not set"),
        (
            {"engine": {"name": "native", "package": "bench.engines.native", "foo": 1}},
            "engine.foo is not an option of engine=native; valid: in_flight",
        ),
    ],
)
def test_settings_that_this_code_does_not_know_are_named(
    recorded: Callable[..., Record], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CannotReproduce, match="this code does not know the record's settings") as rejection:
        config_of(recorded(**changes))
    assert message in str(rejection.value)


def test_text_of_a_record_is_never_resolved(recorded: Callable[..., Record]) -> None:
    assert config_of(recorded(data_dir="${oc.env:HOME}")).data_dir == "${oc.env:HOME}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": {"name": "x", "package": "antigravity"}}, "engine.package=antigravity of the record is not in"),
        ({"workload": {"name": "x", "factory": "os:system"}}, "workload.factory=os:system of the record is not in"),
    ],
)
def test_code_that_only_the_record_names_is_not_run(
    recorded: Callable[..., Record], changes: dict[str, Any], message: str
) -> None:
    config = config_of(recorded(**changes))
    for words in ([], ["hydra.searchpath=[file:///mine]"]):
        with pytest.raises(CannotReproduce, match=message):
            chosen(config, Config(), overrides(words))


def test_a_persons_own_model_is_run_where_they_name_it(recorded: Callable[..., Record]) -> None:
    own = {"name": "Net", "factory": "workloads.module:load", "path": "my.net:Net"}
    factory = group_files("workload")["module"]["factory"]
    config = config_of(recorded(workload=own | {"factory": factory}))
    for words in ([], ["workload=module", "workload.path=other:Net"]):
        with pytest.raises(CannotReproduce, match=r"add workload=module:my\.net:Net"):
            chosen(config, Config(), overrides(words))
    words = ["workload=module", "workload.path=my.net:Net"]
    request.check_arguments(["reproduce=a.json", *words])
    chosen(config, Config(), overrides(words))
    with pytest.raises(CannotReproduce, match="leave it out"):
        chosen(config_of(recorded()), Config(), overrides(words))


def test_a_data_folder_that_is_not_here_is_named(recorded: Callable[..., Record], tmp_path: Path) -> None:
    config = config_of(recorded(data_dir="/nowhere/data"))
    with pytest.raises(CannotReproduce, match="data_dir=/nowhere/data of the record is no folder here"):
        chosen(config, Config(), [])
    config_now = Config(data_dir=str(tmp_path))
    assert chosen(config, config_now, overrides([f"data_dir={tmp_path}"])).data_dir == str(tmp_path)


def test_a_cell_without_an_engine_gets_the_default_one(recorded: Callable[..., Record]) -> None:
    assert config_of(recorded(engine={"name": NO_ENGINE})).engine["name"] == "native"


def test_what_is_no_record_is_rejected_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cut.json").write_text('{"schema_version": 1, "cell_id": "a"')
    (tmp_path / "records").mkdir()
    for place, message in (
        (tmp_path / "none.json", "no such file, nor the id of an MLflow run"),
        (tmp_path / "cut.json", "not a readable record"),
        (tmp_path, "is a folder; valid: one record's file"),
    ):
        with pytest.raises(CannotReproduce, match=message):
            fetch(str(place), Tracking(kind="none"))
    two = Loaded([cell(), cell()], [])
    monkeypatch.setattr(mlflow_store, "run_records", lambda uri, run_id: two)
    with pytest.raises(CannotReproduce, match="2 records, so it is no configuration's run; valid: a child of a sweep"):
        fetch("0123456789abcdef" * 2, Tracking())
    monkeypatch.undo()
    with pytest.raises(CannotReproduce, match="tracking=none names no store"):
        fetch("0123456789abcdef" * 2, Tracking(kind="none"))
    with pytest.raises(CannotReproduce, match=r"MLflow run .*: http://127.0.0.1:9 does not answer"):
        fetch("0123456789abcdef" * 2, Tracking(uri="http://127.0.0.1:9"))


def test_a_newer_codes_record_says_which_code_it_needs(recorded: Callable[..., Record], tmp_path: Path) -> None:
    path = tmp_path / "newer.json"
    recorded().write(path)
    path.write_text(path.read_text().replace('"cell_id"', '"invented": 1, "cell_id"', 1))
    with pytest.raises(CannotReproduce, match=r"unknown field 'invented' \(a record of newer code needs that code\)"):
        fetch(str(path), Tracking(kind="none"))


def test_own_configurations_admit_the_code_that_they_name_and_no_other(
    recorded: Callable[..., Record], tmp_path: Path
) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "mine.yaml").write_text("name: mine\npackage: mine.engine\n")
    search_path = overrides([f"hydra.searchpath=[file://{tmp_path}]"])
    mine = config_of(recorded(engine={"name": "mine", "package": "mine.engine"}))
    assert chosen(mine, Config(), search_path).engine["package"] == "mine.engine"
    hostile = config_of(recorded(engine={"name": "mine", "package": "antigravity"}))
    with pytest.raises(CannotReproduce, match=r"engine\.package=antigravity of the record is not in conf/engine"):
        chosen(hostile, Config(), search_path)


def test_a_record_without_a_path_to_its_model_is_rejected(recorded: Callable[..., Record]) -> None:
    workload = dict(group_files("workload")["module"]) | {"path": None, "name": "Net"}
    with pytest.raises(CannotReproduce, match=r"workload\.path=None of the record is not valid"):
        chosen(config_of(recorded(workload=workload)), Config(), overrides([]))


@pytest.mark.parametrize(("changes", "threads"), [({"gpus": 2**20, "batch_size": 2**20}, 1), ({}, 10**9)])
def test_more_processes_or_threads_than_a_machine_has_are_rejected(
    recorded: Callable[..., Record], changes: dict[str, Any], threads: int
) -> None:
    record = recorded(**changes)
    record.resolved["threads"] = threads
    with pytest.raises(CannotReproduce, match=r"valid: .*at most"):
        config_of(record)


def on_hosts(record: Record, *counts: int) -> Record:
    record.resolved["hosts"] = [{"name": f"n{at}", "ranks": count} for at, count in enumerate(counts)]
    return record


@pytest.mark.parametrize(("counts", "ranks_per_host"), [((1, 1), 1), ((2, 1), 2), ((1, 2), None), ((), None)])
def test_ranks_are_placed_on_hosts_as_they_were(
    recorded: Callable[..., Record], counts: tuple[int, ...], ranks_per_host: int | None
) -> None:
    config = config_of(on_hosts(recorded(), *counts))
    settings = Config(cluster=Cluster(kind="ssh", hosts=["a", "b"]))
    assert chosen(config, settings, overrides([])).cluster.ranks_per_host == ranks_per_host


def test_a_record_of_several_hosts_is_not_reproduced_on_one_machine(recorded: Callable[..., Record]) -> None:
    record = on_hosts(recorded(), 1, 1)
    request.check_hosts(record, Cluster(kind="slurm"))
    request.check_hosts(recorded(), Cluster())
    with pytest.raises(CannotReproduce, match=r"ran on 2 hosts \(n0: 1, n1: 1\); add cluster=env, slurm, ray or ssh"):
        request.check_hosts(record, Cluster())
