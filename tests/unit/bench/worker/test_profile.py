"""What the profile launch may conclude from when ranks start their collectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.plan.jobs import Jobs
from bench.worker.profile import all_meet
from tests.conftest import MakeCell


@pytest.mark.parametrize(
    ("engine", "settings", "expected"),
    [
        ("native", {}, True),
        ("native", {"secondary_shard_size": 2}, False),
        ("torch", {"shard_size": 2}, False),
    ],
)
def test_where_some_collectives_are_of_some_ranks_none_shows_the_last_of_all(
    engine: str, settings: dict[str, Any], expected: bool, make_cell: MakeCell, tmp_path: Path
) -> None:
    cell = make_cell(engine=engine, stage=3, gpus=4, **settings)
    assert all_meet(Jobs(cell, tmp_path).profile()) is expected
