"""The folder of a request that was rejected: it goes, unless it holds more than a sweep begins with."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from bench.checks import ConfigError
from bench.cli.folder import WRITTEN_BY_HYDRA, unless_rejected
from results.store import FolderBusy, RecordStore


@pytest.fixture(params=[False, True], ids=["single", "multirun"])
def multirun(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def folder(tmp_path: Path, multirun: bool) -> Path:
    """As Hydra leaves it to a sweep."""
    for name in WRITTEN_BY_HYDRA[multirun]:
        (tmp_path / "sweep" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sweep" / name).touch()
    return tmp_path / "sweep"


def reject(folder: Path, multirun: bool) -> None:
    rejected = unless_rejected(folder, multirun=multirun)
    with pytest.raises(ConfigError), rejected, contextlib.closing(RecordStore(folder)):
        raise ConfigError("stage=5 is not valid")


def test_nothing_is_left_of_a_request_that_was_rejected(folder: Path, multirun: bool) -> None:
    reject(folder, multirun)
    assert not folder.exists() and folder.parent.exists()


def test_the_folder_of_all_sweeps_goes_with_the_only_one_and_stays_with_others(folder: Path, multirun: bool) -> None:
    runs = folder.parent / "results" / "runs"
    for others in (True, False):
        runs.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, runs / "today")
        (runs / "yesterday").mkdir() if others else (runs / "yesterday").rmdir()
        reject(runs / "today", multirun)
        assert not (runs / "today").exists()
        assert (folder.parent / "results").exists() == others


@pytest.mark.parametrize("name", ["notes.txt", ".hydra/mine.yaml", "records/cell.json", "records/cell.json.unreadable"])
def test_other_files_there_are_kept(folder: Path, multirun: bool, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("kept")
    reject(folder, multirun)
    assert (folder / name).read_text() == "kept"


def test_what_hydra_writes_only_in_the_other_mode_is_not_removed(folder: Path, multirun: bool) -> None:
    for name in WRITTEN_BY_HYDRA[not multirun]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("kept")
    reject(folder, multirun)
    assert all((folder / name).read_text() == "kept" for name in WRITTEN_BY_HYDRA[not multirun])


@pytest.mark.parametrize("error", [ConfigError, FolderBusy])
def test_a_folder_that_another_sweep_writes_into_is_not_touched(
    folder: Path, multirun: bool, error: type[Exception]
) -> None:
    with contextlib.closing(RecordStore(folder)), pytest.raises(error), unless_rejected(folder, multirun=multirun):
        if error is FolderBusy:
            RecordStore(folder)
        raise ConfigError("stage=5 is not valid")
    assert (folder / "records").is_dir() and all((folder / name).exists() for name in WRITTEN_BY_HYDRA[multirun])


def test_a_request_that_was_run_keeps_its_folder(folder: Path, multirun: bool) -> None:
    with unless_rejected(folder, multirun=multirun):
        pass
    assert all((folder / name).exists() for name in WRITTEN_BY_HYDRA[multirun])
