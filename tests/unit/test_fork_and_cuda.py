"""The fork server leaves CUDA alone, and notices when something else did not."""

from __future__ import annotations

from typing import NoReturn

import pytest
import torch

from bench.forkserver.server import machine


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch has no CUDA")
def test_saying_what_the_machine_has_does_not_touch_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched() -> NoReturn:
        raise AssertionError("this initialises CUDA")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)  # what NVML alone can tell
    for name in ("is_available", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    assert machine(0.0).cuda_devices == 8
