"""An embedded MLflow store that could not be made leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from results.mlflow_store import MlflowError, open_client


@pytest.mark.parametrize("existed", [False, True])
def test_a_store_of_which_only_a_part_could_be_made_is_removed(
    existed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mlflow.db"
    if existed:
        file.touch()

    def fill_the_disk(tracking_uri: str) -> NoReturn:
        file.write_bytes(b"a table")
        raise RuntimeError("database or disk is full")

    monkeypatch.setitem(sys.modules, "mlflow.tracking", SimpleNamespace(MlflowClient=fill_the_disk))
    with pytest.raises(MlflowError, match="is no MLflow store: database or disk is full"):
        open_client(f"sqlite:///{file}", create=True)
    assert file.exists() == existed
