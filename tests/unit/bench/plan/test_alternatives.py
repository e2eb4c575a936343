"""A setting that an engine does not support: which engine and stage do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench import engines
from bench.plan.alternatives import alternatives
from bench.plan.cell import Cell


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"engine": "native", "compression": "bf16"}, "supported by engine=torch at stage=0, 1"),
        ({"engine": "torch", "stage": 3, "local_steps": 4}, "supported by engine=torch at stage=0"),
        ({"engine": "torch", "stage": 0, "overlap": False}, "supported by engine=torch at stage=2, 3"),
        ({"engine": "pipeline", "stage": 2}, "supported by engine=pipeline at stage=0 or engine=native at stage="),
    ],
)
def test_an_unsupported_setting_names_an_engine_and_stage(
    make_cell: Callable[..., Cell], settings: dict[str, Any], expected: str
) -> None:
    cell = make_cell(gpus=2, **settings)
    assert cell.status == "unsupported"
    assert f"; {expected}" in cell.reason


def test_what_is_named_is_supported(make_cell: Callable[..., Cell]) -> None:
    cell = make_cell(gpus=2, engine="torch", stage=0, clip_norm=1.0)
    words = alternatives("torch", cell.spec()).partition("engine=native at stage=")[2]
    assert words == "0, 1, 2, 3"
    for stage in map(int, words.split(", ")):
        other = make_cell(gpus=2, engine="native", stage=stage, clip_norm=1.0)
        engines.check_settings("native", other.config.engine["package"], other.spec())


def test_a_setting_without_support_names_no_engine(make_cell: Callable[..., Cell]) -> None:
    cell = make_cell(gpus=2, engine="torch", compression="powersgd", shard_size=2, local_steps=4)
    assert cell.status == "unsupported"
    assert "supported by" not in cell.reason
