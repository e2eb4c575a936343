"""GPUs as the driver reports them (NVML): identity, load, energy, throttling, clock, and processes.

Without ``nvidia-ml-py`` or a driver, or where it does not answer a query, there is no value rather than a zero.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

try:
    import pynvml
except ImportError:  # optional
    pynvml = None

BUSY_PERCENT = 5
USED_BYTES = 2**30
"""More than this on an idle GPU is another process's: contexts of drivers and displays need less."""
LIMITS = {
    "power": "NVML_PERF_POLICY_POWER",
    "thermal": "NVML_PERF_POLICY_THERMAL",
    "board": "NVML_PERF_POLICY_BOARD_LIMIT",
    "reliability": "NVML_PERF_POLICY_RELIABILITY",
}
"""What can hold a GPU's clocks down, by the policy that counts for how long it has."""


@dataclass(frozen=True)
class State:
    """One GPU of this machine now; None where the driver does not report a value."""

    index: int
    uuid: str
    name: str
    driver_version: str
    memory_bytes: int | None
    used_bytes: int | None
    busy_percent: float | None
    temperature_c: float | None
    clock_hz: float | None
    max_clock_hz: float | None
    is_persistent: bool | None
    """Whether the driver stays loaded while no process uses the GPU."""

    @property
    def in_use(self) -> bool:
        """Whether another process uses it, as far as the driver says."""
        return (self.busy_percent or 0) > BUSY_PERCENT or (self.used_bytes or 0) > USED_BYTES


class Gpu:
    """One GPU. Every method returns None, or leaves out, what this driver or GPU does not tell."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.errors: dict[str, str] = {}
        """By question, why the driver did not answer one that this GPU has an answer for."""

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; Volta and later."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def limited_s(self) -> dict[str, float]:
        """Seconds for which each of ``LIMITS`` has held the clocks down, since the driver was loaded."""
        seconds = {}
        for name, policy in LIMITS.items():
            status = self._ask("nvmlDeviceGetViolationStatus", getattr(pynvml, policy))
            if status is not None:
                seconds[name] = status.violationTime / 1e9
        return seconds

    def clock_hz(self) -> float | None:
        """The present clock of the streaming multiprocessors."""
        mhz = self._ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM)
        return None if mhz is None else mhz * 1e6

    def processes(self) -> int | None:
        """Number of processes with a compute context on it."""
        listed = self._ask("nvmlDeviceGetComputeRunningProcesses")
        return None if listed is None else len(listed)

    def process_bytes(self, pid: int) -> int | None:
        """Memory of a process on it; None where the driver does not list the process, as in most containers."""
        listed = self._ask("nvmlDeviceGetComputeRunningProcesses") or []
        return next((process.usedGpuMemory for process in listed if process.pid == pid), None)

    def state(self, index: int, driver_version: str) -> State:
        """``index`` and ``driver_version`` are what NVML knows it by."""
        memory = self._ask("nvmlDeviceGetMemoryInfo", pynvml.nvmlMemory_v2)
        load = self._ask("nvmlDeviceGetUtilizationRates")
        mhz = self._ask("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_SM)
        mode = self._ask("nvmlDeviceGetPersistenceMode")
        return State(
            index,
            self._ask("nvmlDeviceGetUUID") or "",
            self._ask("nvmlDeviceGetName") or "",
            driver_version,
            memory_bytes=None if memory is None else memory.total,
            used_bytes=None if memory is None else memory.used,
            busy_percent=None if load is None else load.gpu,
            temperature_c=self._ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
            clock_hz=self.clock_hz(),
            max_clock_hz=None if mhz is None else mhz * 1e6,
            is_persistent=None if mode is None else mode == pynvml.NVML_FEATURE_ENABLED,
        )

    def _ask(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(pynvml, function)(self._handle, *arguments)
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_NOT_SUPPORTED:
                self.errors[function] = str(error)
            return None


def library() -> ModuleType | None:
    """NVML's Python module; None where it is not installed."""
    module: ModuleType | None = pynvml
    return module


def gpu(device: torch.device) -> tuple[Gpu | None, str]:
    """The GPU behind a torch device; else None, and why the driver did not name it (empty without its library)."""
    import torch

    if pynvml is None:
        return None, ""
    try:
        pynvml.nvmlInit()
        # By UUID: NVML numbers all GPUs of the machine, torch those of CUDA_VISIBLE_DEVICES.
        uuid = str(torch.cuda.get_device_properties(device).uuid).removeprefix("GPU-")
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError as error:
        return None, f"NVML: {error}"
    return Gpu(handle), ""


def states() -> list[State]:
    """Every GPU of this machine in the driver's order; empty without a driver that answers."""
    if pynvml is None:
        return []
    try:
        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    return [Gpu(handle).state(index, driver) for index, handle in enumerate(handles)]


def visible(gpus: list[State]) -> list[State]:
    """Those that CUDA_VISIBLE_DEVICES leaves, by index or by the first letters of a UUID."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return gpus
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    return [gpu for gpu in gpus if any(str(gpu.index) == name or gpu.uuid.startswith(name) for name in names)]


def why_not() -> str:
    """Why the driver does not answer; empty if it does, or if this machine has none."""
    if pynvml is None:
        return "nvidia-ml-py is not installed (pip install nvidia-ml-py)" if shutil.which("nvidia-smi") else ""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return "" if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND else f"NVML: {error}"
    return ""
