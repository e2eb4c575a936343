"""Global state that a person's factory may change: it is put back after each call, and named.

Each setting that the suite itself decides (dtype, device, gradients, threads, ...) is put back, so that a workload is
trained as its record says. What belongs to the model or cannot be put back (patched functions, running threads) stays,
in the processes of this workload alone. ``changes`` has one line for each, which becomes a warning of the record.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from bench.worker.patches import patched, torch_functions
from results.shown import cut

VARIABLES = ("OMP_", "MKL_", "KMP_", "GLOO_", "NCCL_", "TORCH", "PYTORCH_", "CUDA_", "CUBLAS_", "CUDNN_", "MALLOC_")
"""Environment variables that change what is measured begin with these."""
DEVICES = ("cpu", "cuda")

_changes: dict[str, None] = {}
_kept_open: list[Any] = []


@dataclass(frozen=True)
class GlobalSetting:
    """One part of the global state; ``put`` is None where it cannot be put back."""

    read: Callable[[], Any]
    put: Callable[[Any], object] | None


def changes() -> list[str]:
    """What factories and imports have changed in this process, and in those that it was forked from."""
    return list(_changes)


@contextlib.contextmanager
def watched(cause: str) -> Iterator[None]:
    """Puts global state back after the block, and names what changed. The state of random generators is put back too,
    without a word: a factory may draw."""
    before, functions, threads = snapshot(SETTINGS), torch_functions(), set(threading.enumerate())
    generators = random.getstate(), numpy.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(generators[0])
        numpy.random.set_state(generators[1])
        torch.default_generator.set_state(generators[2])
        note_patches(cause, functions)
        put_back(cause, SETTINGS, before)
        for thread in set(threading.enumerate()) - threads:
            _note(f"{cause} left a thread running: {thread.name}")


def note_patches(cause: str, functions: Mapping[str, Any]) -> None:
    for name in patched(functions):
        _note(f"{cause} replaced {name}; left as it is, in the processes of this workload")


def check_at_start() -> None:
    """Puts torch's settings back to what they were when this module was imported, before any engine or factory."""
    put_back("an import or a running thread", TORCH_SETTINGS, AT_IMPORT)


def put_back(cause: str, settings: Mapping[str, GlobalSetting], before: Mapping[str, Any]) -> None:
    after = snapshot(settings)  # all of them first: one may put another back
    changed = [name for name in settings if after[name] != before[name]]
    errors = {name: _put(settings[name], before[name]) for name in changed}
    for name in changed:
        how = "put back" if settings[name].read() == before[name] else f"not put back: {errors[name]}"
        _note(f"{cause} changed {name} from {_words(before[name], after[name])} ({how})")


def _put(setting: GlobalSetting, value: Any) -> str:
    """Puts a setting back; why that failed."""
    if setting.put is None:
        return "there is no way to"
    try:
        setting.put(value)
    except (OSError, RuntimeError, ValueError) as error:
        return str(error).splitlines()[0]
    return "it stays"


def snapshot(settings: Mapping[str, GlobalSetting]) -> dict[str, Any]:
    return {name: setting.read() for name, setting in settings.items()}


def _note(line: str) -> None:
    _changes[line] = None


def _words(before: Any, now: Any) -> str:
    if isinstance(before, dict):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        pairs = [(name, before.get(name, "unset"), now.get(name, "unset")) for name in names]
        return ", ".join(f"{name}={_word(old)} to {_word(new)}" for name, old, new in pairs)
    return f"{before} to {now}"


def _word(value: Any) -> str:
    return cut(str(getattr(value, "name", value)))


def _put_device(device: torch.device) -> None:
    while (depth := torch._C._len_torch_function_stack()) and torch.get_default_device() != device:
        torch._C._pop_torch_function_stack()  # also ``with torch.device(...)`` that was entered and never left
        if torch._C._len_torch_function_stack() >= depth:
            break
    torch.utils._device.CURRENT_DEVICE = None
    torch._GLOBAL_DEVICE_CONTEXT.device_context = None
    if torch.get_default_device() != device:
        torch.set_default_device(device)


def _put_inference(enabled: bool) -> None:
    guard = torch._C._InferenceMode(enabled)
    guard.__enter__()
    _kept_open.append(guard)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _autocast() -> dict[str, Any]:
    enabled = {f"{device}": torch.is_autocast_enabled(device) for device in DEVICES}
    dtypes = {f"{device} dtype": torch.get_autocast_dtype(device) for device in DEVICES}
    return enabled | dtypes | {"cache": torch.is_autocast_cache_enabled()}


def _put_autocast(values: dict[str, Any]) -> None:
    for device in DEVICES:
        torch.set_autocast_enabled(device, values[device])
        torch.set_autocast_dtype(device, values[f"{device} dtype"])
    torch.set_autocast_cache_enabled(values["cache"])


def _backends() -> dict[str, bool]:
    return {name: bool(getattr(torch._C, f"_get_{name}")()) for name in BACKENDS}


def _put_backends(values: dict[str, bool]) -> None:
    for name, value in values.items():
        getattr(torch._C, BACKENDS[name])(value)


def _module_hooks() -> dict[str, int]:
    """How many hooks are registered for all modules at once."""
    module = torch.nn.modules.module
    tables = {name: value for name, value in vars(module).items() if name.startswith("_global_")}
    return {name: len(value) for name, value in tables.items() if isinstance(value, dict)}


def _put_module_hooks(counts: dict[str, int]) -> None:
    for name, count in counts.items():
        table = getattr(torch.nn.modules.module, name)
        while len(table) > count:
            table.popitem()


def _signals() -> dict[str, Any]:
    return {number.name: signal.getsignal(number) for number in map(signal.Signals, signal.valid_signals() & NAMED)}


def _put_signals(handlers: dict[str, Any]) -> None:
    for name, handler in handlers.items():
        if handler is not None and signal.getsignal(signal.Signals[name]) != handler:
            signal.signal(signal.Signals[name], handler)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        return f"a folder that is gone ({error.strerror})"


def _variables() -> dict[str, str]:
    """Without the folders that torch names when its compiler is imported."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(VARIABLES) and not name.endswith("_CACHE_DIR")
    }


def _put_variables(values: dict[str, str]) -> None:
    for name in set(_variables()) - set(values):
        del os.environ[name]
    os.environ.update(values)


NAMED = {number.value for number in signal.Signals}
BACKENDS = {
    "cudnn_benchmark": "_set_cudnn_benchmark",
    "cudnn_deterministic": "_set_cudnn_deterministic",
    "cudnn_enabled": "_set_cudnn_enabled",
    "mkldnn_enabled": "_set_mkldnn_enabled",
    "flash_sdp_enabled": "_set_sdp_use_flash",
    "mem_efficient_sdp_enabled": "_set_sdp_use_mem_efficient",
    "math_sdp_enabled": "_set_sdp_use_math",
}
"""torch's flags for kernels, and what sets each."""
TORCH_SETTINGS = {
    "torch's default dtype": GlobalSetting(torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": GlobalSetting(torch.get_default_device, _put_device),
    "torch's inference mode": GlobalSetting(torch.is_inference_mode_enabled, _put_inference),
    "torch's gradients": GlobalSetting(torch.is_grad_enabled, torch._C._set_grad_enabled),
    "torch's autocast": GlobalSetting(_autocast, _put_autocast),
    "torch's anomaly detection": GlobalSetting(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "torch's deterministic algorithms": GlobalSetting(
        _deterministic, lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1])
    ),
    "torch's float32 matmul precision": GlobalSetting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    "torch's kernels": GlobalSetting(_backends, _put_backends),
    "torch's number of threads": GlobalSetting(torch.get_num_threads, torch.set_num_threads),
    "torch's number of inter-op threads": GlobalSetting(torch.get_num_interop_threads, None),
    "hooks of all modules": GlobalSetting(_module_hooks, _put_module_hooks),
}
PROCESS_SETTINGS = {
    "Python's garbage collection": GlobalSetting(gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    "Python's switch interval": GlobalSetting(sys.getswitchinterval, sys.setswitchinterval),
    "signal handlers": GlobalSetting(_signals, _put_signals),
    "the CPUs of the process": GlobalSetting(
        lambda: os.sched_getaffinity(0), lambda cpus: os.sched_setaffinity(0, cpus)
    ),
    "the working folder": GlobalSetting(_folder, os.chdir),
    "the umask": GlobalSetting(_umask, os.umask),
    "the environment": GlobalSetting(_variables, _put_variables),
}
SETTINGS = TORCH_SETTINGS | PROCESS_SETTINGS
AT_IMPORT = snapshot(TORCH_SETTINGS)
