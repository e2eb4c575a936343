"""What is checked before a night, and what spoils it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.measure.machine import nvml
from bench.measure.machine.command import CommandOutput
from bench.measure.machine.nvml import State
from bench.preflight import machine as preflight
from bench.preflight.machine import Check
from results.source import Source

GPU = State(
    index=0,
    uuid="GPU-a",
    name="NVIDIA H100",
    driver_version="580.10",
    memory_bytes=80 << 30,
    used_bytes=4 << 20,
    busy_percent=0,
    temperature_c=31,
    clock_hz=345e6,
    max_clock_hz=1980e6,
    is_persistent=True,
)
SEEN = {"torch": "2.15.0", "gpus": 1, "nccl": "2.29.7"}


def wrong(findings: list[Check]) -> list[str]:
    return [finding.what for finding in findings if finding.verdict == "wrong"]


def test_an_idle_gpu_with_nccl_is_fit() -> None:
    assert [finding.verdict for finding in preflight.graphics([GPU], SEEN)] == ["ok"] * 5


@pytest.mark.parametrize(
    ("driver", "seen", "what"),
    [
        ([replace(GPU, busy_percent=97)], SEEN, "GPU 0"),
        ([replace(GPU, used_bytes=30000 << 20)], SEEN, "GPU 0"),
        ([GPU], SEEN | {"nccl": None}, "NCCL"),
        ([GPU], SEEN | {"gpus": 0}, "GPUs"),
        ([GPU, replace(GPU, index=1, name="NVIDIA A100")], SEEN | {"gpus": 2}, "GPUs"),
        ([], {"error": "python: no torch"}, "torch"),
    ],
)
def test_what_spoils_a_night_on_gpus_is_named(driver: list[State], seen: dict[str, Any], what: str) -> None:
    assert wrong(preflight.graphics(driver, seen)) == [what]


def test_a_driver_that_is_not_kept_up_is_only_noted() -> None:
    findings = preflight.graphics([replace(GPU, is_persistent=False)], SEEN)
    assert [(finding.what, finding.verdict) for finding in findings if finding.verdict != "ok"] == [
        ("persistence", "note")
    ]


def test_a_gpu_is_described_by_what_the_driver_reports() -> None:
    assert preflight.idle(replace(GPU, temperature_c=None)).value == "0 % busy, 4 MiB used, 345 MHz"


def test_a_machine_without_gpus_may_run_in_small() -> None:
    assert [finding.verdict for finding in preflight.graphics([], SEEN | {"gpus": 0, "nccl": None})] == ["note"]


def test_only_visible_gpus_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [replace(GPU, index=at, uuid=f"GPU-{at}f") for at in range(3)]
    for visible, expected in (("1", [1]), ("GPU-2f,0", [0, 2]), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [gpu.index for gpu in nvml.visible(gpus)] == expected
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert len(nvml.visible(gpus)) == 3


def test_what_did_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A failed command is neither a machine without GPUs nor a folder without a commit."""
    monkeypatch.setattr(preflight.nvml, "why_not", lambda: "NVML: driver mismatch")
    monkeypatch.setattr(preflight, "output", lambda command, timeout_s: CommandOutput(error="python: no module torch"))
    rejected = Source("", "", not_recorded="git: dubious ownership")
    monkeypatch.setattr(preflight.source, "collect", lambda arguments: rejected)
    looked_at = {finding.what: finding for finding in preflight.preflight(tmp_path)}
    assert looked_at["driver"].advice == "NVML: driver mismatch" and looked_at["driver"].verdict == "wrong"
    assert "no module torch" in looked_at["torch"].advice
    assert "dubious ownership" in looked_at["source"].advice
    assert preflight.idle(replace(GPU, busy_percent=None)).verdict == "note"


def test_versions_are_compared_with_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "uv.lock"
    lock.write_text('[[package]]\nname = "torch"\nversion = "2.15.0"\n[[package]]\nname = "rich"\nversion = "13.0"\n')
    assert preflight.locked({"torch": "2.15.0", "unknown-to-it": "1"}, lock).verdict == "ok"
    finding = preflight.locked({"torch": "2.14.0", "rich": "13.0"}, lock)
    assert (finding.verdict, finding.value) == ("wrong", "1 of 2 differ")
    assert "torch 2.14.0" in finding.advice
    assert preflight.locked({}, tmp_path / "none").verdict == "wrong"


def test_a_full_disk_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    assert preflight.disk("disk", tmp_path / "not" / "there", 0).verdict == "ok"
    assert preflight.disk("disk", tmp_path, 2**60).verdict == "wrong"
