"""What is checked before a night, and what spoils it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.measure.machine.command import Output
from bench.nightly import preflight
from bench.nightly.preflight import Finding

GPU = {
    "index": "0",
    "uuid": "GPU-a",
    "name": "NVIDIA H100",
    "driver_version": "580.10",
    "persistence_mode": "Enabled",
    "utilization.gpu": "0 %",
    "memory.used": "4 MiB",
    "temperature.gpu": "31",
    "clocks.sm": "345 MHz",
    "clocks.max.sm": "1980 MHz",
}
SEEN = {"torch": "2.15.0", "gpus": 1, "nccl": "2.29.7"}


def wrong(found: list[Finding]) -> list[str]:
    return [finding.what for finding in found if finding.verdict == "wrong"]


def test_an_idle_gpu_with_nccl_is_fit() -> None:
    assert [finding.verdict for finding in preflight.graphics([GPU], SEEN)] == ["ok"] * 5


@pytest.mark.parametrize(
    ("driver", "seen", "what"),
    [
        ([GPU | {"utilization.gpu": "97 %"}], SEEN, "GPU 0"),
        ([GPU | {"memory.used": "30000 MiB"}], SEEN, "GPU 0"),
        ([GPU], SEEN | {"nccl": None}, "NCCL"),
        ([GPU], SEEN | {"gpus": 0}, "GPUs"),
        ([GPU, GPU | {"index": "1", "name": "NVIDIA A100"}], SEEN | {"gpus": 2}, "GPUs"),
        ([], {}, "torch"),
    ],
)
def test_what_spoils_a_night_on_gpus_is_named(driver: list[dict[str, str]], seen: dict[str, Any], what: str) -> None:
    assert wrong(preflight.graphics(driver, seen)) == [what]


def test_a_driver_that_is_not_kept_up_is_only_noted() -> None:
    found = preflight.graphics([GPU | {"persistence_mode": "Disabled"}], SEEN)
    assert [(finding.what, finding.verdict) for finding in found if finding.verdict != "ok"] == [
        ("persistence", "note")
    ]


def test_a_machine_without_gpus_may_run_in_small() -> None:
    assert [finding.verdict for finding in preflight.graphics([], SEEN | {"gpus": 0, "nccl": None})] == ["note"]


def test_only_visible_gpus_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [", ".join((GPU | {"index": str(at), "uuid": f"GPU-{at}f"}).values()) for at in range(3)]
    monkeypatch.setattr(preflight.environment, "output", lambda command: Output("\n".join(lines)))
    for visible, expected in (("1", ["1"]), ("GPU-2f,0", ["0", "2"]), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [gpu["index"] for gpu in preflight.gpus()] == expected
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert len(preflight.gpus()) == 3


def test_versions_are_held_against_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "uv.lock"
    lock.write_text('[[package]]\nname = "torch"\nversion = "2.15.0"\n[[package]]\nname = "rich"\nversion = "13.0"\n')
    assert preflight.locked({"torch": "2.15.0", "unknown-to-it": "1"}, lock).verdict == "ok"
    found = preflight.locked({"torch": "2.14.0", "rich": "13.0"}, lock)
    assert (found.verdict, found.found) == ("wrong", "1 of 2 differ")
    assert "torch 2.14.0" in found.advice
    assert preflight.locked({}, tmp_path / "none").verdict == "wrong"


def test_a_full_disk_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    assert preflight.disk("disk", tmp_path / "not" / "there", 0).verdict == "ok"
    assert preflight.disk("disk", tmp_path, 2**60).verdict == "wrong"


def test_the_preflight_can_be_run_by_itself() -> None:
    command = [sys.executable, "-m", "bench.nightly.preflight"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert {"source", "versions", "processors", "disk", "shared memory", "GPUs"} <= set(rows), done
    assert (done.returncode == 0) == (not done.stderr.startswith("preflight:"))
    assert subprocess.run([*command, "--gpus"], capture_output=True, check=True).stdout.strip().isdigit()
