"""A record's cell is run again: bit by bit the same, and one altered loss or digest is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from results.record import Record
from tests.integration.test_sweep import records, run

TINY = ("gpus=2", "stage=2", "batch_size=8", "steps=2", "warmup=1", "repeats=2", "deterministic=true")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of one deterministic cell in ``first`` and its MLflow store."""
    place = tmp_path_factory.mktemp("reproduce")
    done = run(place, *TINY, "hydra.run.dir=first")
    assert done.returncode == 0, done.stderr
    return place


def record_path(place: Path) -> Path:
    (path,) = (place / "first" / "records").glob("*.json")
    return path


def test_a_deterministic_cell_is_reproduced_bit_by_bit_from_its_mlflow_run(measured: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{measured}/mlflow.db")
    experiment = client.get_experiment_by_name("ddp-zero-bench")
    assert experiment
    (child,) = client.search_runs([experiment.experiment_id], "tags.record LIKE 'native%'")
    done = run(measured, f"reproduce={child.info.run_id}", "tracking.artifacts=mlartifacts", "hydra.run.dir=again")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Reproduced, bit by bit." in done.stdout
    before, (after,) = Record.read(record_path(measured)), records(measured / "again").values()
    assert before.parity and after.parity and before.source and after.source
    assert after.parity.weights_digest == before.parity.weights_digest != ""
    assert [rank.losses for launch in after.launches for rank in launch.ranks] == [
        rank.losses for launch in before.launches for rank in launch.ranks
    ]
    assert after.source.digest == before.source.digest and before.source.lock_digest
    reproduction = json.loads((measured / "again" / "reproduction.json").read_text())
    assert reproduction["reproduced"] and reproduction["failed"] == []
    assert len([figure for figure in reproduction["figures"] if figure["decides"]]) == 9
    assert "| digest of the weights |" in (measured / "again" / "reproduction.md").read_text()


def test_an_altered_record_is_not_reproduced_and_the_figure_is_named(measured: Path, tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(record_path(measured).read_text())
    document["parity"]["losses"][1] *= 1 + 2**-50
    document["parity"]["weights_digest"] = "0" * 64
    altered = tmp_path / "altered.json"
    altered.write_text(json.dumps(document))
    done = run(tmp_path, f"reproduce={altered}", "repeats=1", "tracking=none", "hydra.run.dir=again")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Not reproduced: losses of the parity steps, digest of the weights differ." in done.stdout
    reproduction = json.loads((tmp_path / "again" / "reproduction.json").read_text())
    assert reproduction["failed"] == ["losses of the parity steps", "digest of the weights"]
    (after,) = records(tmp_path / "again").values()
    assert len(after.launches) == 1


def test_what_cannot_be_tried_exits_with_status_2_and_one_line(measured: Path, tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(record_path(measured).read_text())
    document["config"]["backend"] = document["resolved"]["backend"] = "mpi"
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(json.dumps(document))
    unmeasured = tmp_path / "unmeasured.json"
    document |= {"status": "interrupted", "launches": []}
    unmeasured.write_text(json.dumps(document))
    for arguments, message in (
        ((f"reproduce={elsewhere}",), "cannot run here: backend=mpi"),
        ((f"reproduce={elsewhere}", "stage=1"), "bench: stage=1 would make it another configuration than the record's"),
        ((f"reproduce={unmeasured}",), "was interrupted; there is nothing to reproduce"),
        (("reproduce=missing.json",), "bench: reproduce=missing.json: no such file"),
        (("reproduce=missing.json", "gpus=x"), "bench: gpus='x' is not valid"),
        (("reproduce=missing.json", "foo=1"), "bench: foo is not a setting"),
        (("reproduce=missing.json", "[1"), "cannot be read as an override"),
        ((f"reproduce={'long' * 75}",), "File name too long"),
    ):
        done = run(tmp_path, *arguments, "tracking=none", "hydra.run.dir=out")
        assert done.returncode == 2, done.stderr
        assert message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_resuming_with_other_code_keeps_what_is_whole_restarts_the_rest_and_warns(
    measured: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep" / "records"
    folder.mkdir(parents=True)
    whole = Record.read(record_path(measured))
    assert whole.source
    document = json.loads(record_path(measured).read_text())
    document["source"]["digest"] = "0" * 64
    name = record_path(measured).name
    (folder / name).write_text(json.dumps(document))
    again = (*TINY, "resume=true", "tracking=none", f"hydra.run.dir={folder.parent}")
    done = run(tmp_path, *again)
    assert done.returncode == 0, done.stderr
    assert "the sweep now mixes codes: 1 configuration(s) differ from the rest" in done.stderr
    assert "0 of them, not finished, start again" in done.stderr
    assert Record.read(folder / name).launches == whole.launches

    document["launches"].pop()
    (folder / name).write_text(json.dumps(document))
    done = run(tmp_path, *again)
    assert "1 of them, not finished, start again" in done.stderr
    restarted = Record.read(folder / name)
    assert restarted.source and restarted.source.digest == whole.source.digest
    assert len(restarted.launches) == 2 and restarted.launches[0] != whole.launches[0]
    assert json.loads((folder / f"{name}.superseded-1").read_text()) == document
