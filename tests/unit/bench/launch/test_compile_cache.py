"""Compiled code is kept where no other user can write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.launch import compile_cache as cache
from bench.launch.local import server_environment


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    cache.compile_cache.cache_clear()
    yield
    cache.compile_cache.cache_clear()


def test_the_cache_is_a_folder_of_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    folder = Path(cache.compile_cache())
    assert folder.is_relative_to(tmp_path) and folder.stat().st_mode & 0o777 == 0o700
    assert server_environment()[cache.VARIABLE] == str(folder)


@pytest.mark.parametrize("kind", ["writable by all", "a link", "another user's"])
def test_a_folder_that_another_user_could_fill_is_not_used(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "ddp-zero-bench" / "torchinductor"
    folder.parent.mkdir()
    if kind == "a link":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        folder.chmod(0o777 if kind == "writable by all" else 0o700)
    if kind == "another user's":
        monkeypatch.setattr(cache.os, "getuid", lambda: folder.stat().st_uid + 1)
    other = Path(cache.compile_cache())
    assert not other.is_relative_to(tmp_path) and other.stat().st_mode & 0o777 == 0o700


def test_a_persons_own_choice_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, "/mine")
    assert server_environment()[cache.VARIABLE] == "/mine"
