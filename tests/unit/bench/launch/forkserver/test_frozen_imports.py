"""What a workload imports is no work for the collections of its ranks."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.job import WorkloadSpec
from bench.launch.forkserver.template import load

KEPT = 50_000


@pytest.fixture
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("unfrozen")
def test_what_a_workload_keeps_is_not_visited_by_a_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"from workloads.mlp import MLP\nkept = [[] for _ in range({KEPT})]\n"
    (tmp_path / "keeps_much.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load(WorkloadSpec("keeps_much:MLP", 0, None, {"depth": 1, "width": 4}))
    assert gc.get_freeze_count() > KEPT > len(gc.get_objects())
