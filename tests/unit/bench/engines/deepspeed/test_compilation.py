"""Locks of compilations that were interrupted."""

from __future__ import annotations

from pathlib import Path

from bench.engines.deepspeed.compilation import remove_stale_locks


def test_a_lock_is_removed_unless_a_process_has_it_open(tmp_path: Path) -> None:
    stale, live = (tmp_path / "py311_cpu" / name / "lock" for name in ("cpu_adam", "async_io"))
    for lock in (stale, live):
        lock.parent.mkdir(parents=True)
        lock.touch()
    assert remove_stale_locks(2, tmp_path) == [] and stale.exists(), "another host may have it open"
    with live.open():
        assert remove_stale_locks(1, tmp_path) == [stale]
    assert not stale.exists() and live.exists()
    assert remove_stale_locks(1, tmp_path) == [live]
    assert remove_stale_locks(1, tmp_path / "nothing") == []
