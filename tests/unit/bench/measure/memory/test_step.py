"""What a launch counts of memory in addition to the allocator's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bench.measure.machine import nvml
from bench.measure.memory.step import beyond_allocator_bytes

MIB = 1 << 20


@pytest.mark.parametrize(
    ("gpu", "why_not", "expected"),
    [
        (SimpleNamespace(process_bytes=lambda pid: 700 * MIB, errors={}), "", (500 * MIB, "")),
        (
            SimpleNamespace(process_bytes=lambda pid: None, errors={}),
            "",
            (None, "the driver does not list this process, as in most containers"),
        ),
        (SimpleNamespace(process_bytes=lambda pid: None, errors={"a": "GPU is lost"}), "", (None, "GPU is lost")),
        (None, "NVML: Driver Not Loaded", (None, "NVML: Driver Not Loaded")),
        (None, "", (None, "nvidia-ml-py is not installed")),
    ],
)
def test_memory_beyond_the_allocator_is_counted_or_has_a_reason(
    gpu: object, why_not: str, expected: tuple[int | None, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "gpu", lambda device: (gpu, why_not))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 200 * MIB)
    assert beyond_allocator_bytes() == expected
