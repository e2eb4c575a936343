"""A sweep to break, which no test leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broken_sweep import Broken


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Broken]:
    broken = Broken(tmp_path)
    yield broken
    if broken.process and broken.process.poll() is None:
        broken.process.kill()
        broken.process.communicate()
