"""A sweep on a Ray cluster of two emulated nodes, started on a machine that is none of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from results.record import Record
from tests.ray_lab import RayLab, obstacle

ROOT = Path(__file__).resolve().parents[2]
why_not = obstacle()
pytestmark = [
    *(pytest.mark.exhaustive, pytest.mark.alone),
    pytest.mark.skipif(why_not is not None, reason=why_not or ""),
]


@pytest.fixture
def lab() -> Iterator[RayLab]:
    with (
        tempfile.TemporaryDirectory() as short,  # Ray's sockets lie below it, and their paths are limited
        RayLab(Path(short)).running(2) as made,
    ):
        yield made


def test_a_sweep_from_outside_a_ray_cluster_runs_on_its_nodes(lab: RayLab, tmp_path: Path) -> None:
    words = ["-m", "bench", "engine=torch", "stage=0", "gpus=2", "cluster=ray", f"cluster.ray={lab.client_address()}"]
    words += ["cluster.ranks_per_host=1", "measure.ceiling=false", "tracking=none", "repeats=1", "steps=3"]
    done = subprocess.run(
        lab.at("ctl", sys.executable, *words, f"hydra.run.dir={tmp_path / 'out'}"),
        cwd=ROOT,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out" / "records").glob("*.json")
    record = Record.read(path)
    assert record.status == "ok" and record.parity and record.parity.passed
    assert [(host["name"], host["ranks"]) for host in record.resolved["hosts"]] == [("n1", 1), ("n2", 1)]
    assert [line for name in ("n1", "n2") for line in lab.processes(name) if "host_server" in line] == []
