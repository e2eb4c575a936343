"""The fork server leaves CUDA alone, and notices when something else did not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch

from bench.launch.forkserver.outcome import cause_order
from bench.launch.forkserver.rank_main import describe_error
from bench.launch.forkserver.server import machine
from bench.launch.forkserver.start import forks_lack_cuda
from bench.launch.local import server_environment
from workloads.base import WorkloadError, rejections

NCCL_ERROR = "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94"


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch has no CUDA")
def test_saying_what_the_machine_has_does_not_touch_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched() -> NoReturn:
        raise AssertionError("this initialises CUDA")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)  # what NVML alone can tell
    for name in ("is_available", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    assert machine(0.0).cuda_devices == 8


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch has no CUDA")
def test_a_library_that_asks_for_gpus_while_it_is_imported_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.cuda.is_available()`` would ask the driver, after which no fork can use CUDA."""

    def count_by_driver() -> NoReturn:
        raise AssertionError("this asks the driver")

    monkeypatch.delenv("PYTORCH_NVML_BASED_CUDA_CHECK", raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", count_by_driver)
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: 8)
    for name, value in server_environment().items():
        monkeypatch.setenv(name, value)
    assert torch.cuda.is_available()


@pytest.mark.parametrize("poisoned", [False, True])
def test_a_server_in_which_gpus_were_counted_by_the_driver_is_detected(
    monkeypatch: pytest.MonkeyPatch, poisoned: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: poisoned)
    assert forks_lack_cuda() == poisoned


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom"),
        (RuntimeError(f"{NCCL_ERROR}, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"), "oom"),
        (RuntimeError(f"{NCCL_ERROR}, unhandled cuda error\nLast error:\nCuda failure 700"), "failed"),
    ],
)
def test_a_gpu_without_room_is_out_of_memory_whoever_asked(error: Exception, status: str) -> None:
    assert describe_error(error)["status"] == status


def test_a_rank_whose_peer_left_is_not_the_cause() -> None:
    def ended(rank: int, message: str) -> Any:
        return SimpleNamespace(
            rank=rank, stopped_by_us=False, wait_status=256, answer=lambda: {"error": {"message": message}}
        )

    lost = ended(0, f"{NCCL_ERROR}, remote process exited or there was a network error, NCCL version 2.28.9")
    cause = ended(3, "CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert min([lost, cause], key=cause_order) is cause


@pytest.mark.parametrize(("cause", "status"), [("can't allocate memory", "oom"), ("heads must fit", "unsupported")])
def test_a_model_without_room_is_out_of_memory_not_rejected(cause: str, status: str) -> None:
    with pytest.raises(WorkloadError) as caught, rejections("hf: llama", "valid: another"):
        raise RuntimeError(cause)
    assert describe_error(caught.value)["status"] == status
