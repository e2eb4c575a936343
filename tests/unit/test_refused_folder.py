"""The folder of a request that was refused: it goes, unless it holds more than a sweep begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config import ConfigError
from bench.store import WRITTEN_BY_HYDRA, RecordStore, unless_refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As Hydra leaves it to a sweep."""
    for name in WRITTEN_BY_HYDRA:
        (tmp_path / "sweep" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sweep" / name).touch()
    return tmp_path / "sweep"


def refuse(folder: Path) -> None:
    with pytest.raises(ConfigError), unless_refused(folder):
        RecordStore(folder)
        raise ConfigError("stage=5 is not valid")


def test_nothing_is_left_of_a_request_that_was_refused(folder: Path) -> None:
    refuse(folder)
    assert not folder.exists() and folder.parent.exists()


@pytest.mark.parametrize("name", ["notes.txt", ".hydra/mine.yaml", "records/cell.json", "records/cell.json.unreadable"])
def test_what_somebody_keeps_there_stays(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("kept")
    refuse(folder)
    assert (folder / name).read_text() == "kept"


def test_a_request_that_was_run_keeps_its_folder(folder: Path) -> None:
    with unless_refused(folder):
        pass
    assert all((folder / name).exists() for name in WRITTEN_BY_HYDRA)
