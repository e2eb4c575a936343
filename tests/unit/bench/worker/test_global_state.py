"""Global state is put back after a factory, and each change is named."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from bench.worker import global_state
from bench.worker.global_state import changes, watched
from tests.workload_cases import every_workload, load


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    global_state._changes.clear()
    yield
    global_state._changes.clear()


def inference() -> None:
    entered.append(torch.inference_mode())
    entered[-1].__enter__()


def device_context() -> None:
    torch.device("meta").__enter__()


def autocast() -> None:
    torch.autocast("cpu", dtype=torch.float16).__enter__()


def hook() -> None:
    nn.modules.module.register_module_forward_hook(lambda *_: None)


entered: list[torch.inference_mode] = []
CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "inference mode": (inference, "torch's inference mode from False to True"),
    "a device context": (device_context, "torch's default device from cpu to meta"),
    "autocast": (autocast, "torch's autocast from cpu=False to True, cpu dtype=torch.bfloat16 to torch.float16"),
    "anomaly detection": (lambda: torch.autograd.set_detect_anomaly(True), "anomaly detection from False to True"),
    "determinism": (lambda: torch.use_deterministic_algorithms(True), "deterministic algorithms from"),
    "precision of products": (lambda: torch.set_float32_matmul_precision("medium"), "from highest to medium"),
    "kernels": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "cudnn_benchmark=False to True"),
    "hooks": (hook, "hooks of all modules from _global_forward_hooks=0 to 1"),
    "collection": (gc.disable, "Python's garbage collection from True to False"),
    "the umask": (lambda: os.umask(0o007), "the umask from"),
    "a CPU less": (lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}), "the CPUs of the process from"),
    "a variable": (lambda: os.environ.update(OMP_WAIT_POLICY="active"), "OMP_WAIT_POLICY=unset to active"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_put_back_and_named(change: str) -> None:
    make, words = CHANGES[change]
    if change == "a CPU less" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU")
    with watched("my:Factory"):
        make()
    lines = changes()
    assert any(words in line for line in lines), lines
    assert all(line.startswith("my:Factory changed ") and line.endswith("(put back)") for line in lines)
    with watched("another:Factory"):
        weight = nn.Parameter(torch.ones(2))
        (2 * weight).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [2.0, 2.0]
    assert changes() == lines, "nothing is left of it"


def test_a_factory_may_draw_random_numbers() -> None:
    expected = []
    for draws in (False, True):
        torch.manual_seed(3)
        random.seed(3)
        with watched("my:Factory"):
            if draws:
                torch.rand(3)
                random.seed(0)
        expected.append((torch.rand(2).tolist(), random.random()))
    assert expected[0] == expected[1] and changes() == []


def test_a_factory_that_raises_leaves_nothing_either() -> None:
    with pytest.raises(ValueError, match="no"), watched("my:Factory"):
        torch.set_default_dtype(torch.float64)
        raise ValueError("no")
    assert torch.get_default_dtype() == torch.float32 and len(changes()) == 1


@every_workload
def test_no_workload_of_the_suite_changes_global_state(name: str) -> None:
    with watched(name):
        load(name).build()
    assert changes() == []
