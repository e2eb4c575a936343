"""docs/how-to/add_an_engine.md, followed: an engine of one's own, outside the suite, in under 60 lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeCell, RunCheck

TOY = {"name": "toy", "package": "tests.toy_engine"}


def test_it_is_under_60_lines() -> None:
    files = (Path(__file__).parent.parent / "toy_engine").glob("*.py")
    assert sum(len(file.read_text().splitlines()) for file in files) < 60


@pytest.mark.parametrize("gpus", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"accumulate": 2, "clip_norm": 0.1}, {"precision": "amp_bf16"}], ids=str)
def test_it_trains_as_one_process_does(
    gpus: int, settings: dict[str, Any], make_cell: MakeCell, run_check: RunCheck
) -> None:
    rank = run_check(make_cell(engine=TOY, gpus=gpus, measure={"collectives": True}, **settings))[0]
    assert rank.parity.error <= rank.parity.tolerance
    assert {line.kind for line in rank.collectives} == {"all_reduce"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"stage": 1}, "engine=toy has no stage=1: it has 0"),
        ({"bucket_mb": 1.0}, "engine=toy has no bucket_mb=1.0: it reduces gradients one by one"),
        ({"precision": "bf16"}, "engine=toy has no precision=bf16: it has fp32, amp_bf16"),
        ({"overlap": True}, "engine=toy has no overlap=true"),
    ],
    ids=str,
)
def test_what_it_does_not_declare_is_rejected_by_its_name(
    settings: dict[str, Any], reason: str, make_cell: MakeCell
) -> None:
    cell = make_cell(engine=TOY, gpus=2, **settings)
    assert cell.status == "unsupported"
    assert cell.reason.startswith(f"{reason}; supported by engine=")
