"""What the driver says of one GPU (NVML): energy, throttling, clock, and who computes on it.

Needs the optional package ``nvidia-ml-py``. Without it, or where the driver refuses a question, there is no answer
rather than a zero.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LIMITS = {
    "power": "NVML_PERF_POLICY_POWER",
    "thermal": "NVML_PERF_POLICY_THERMAL",
    "board": "NVML_PERF_POLICY_BOARD_LIMIT",
    "reliability": "NVML_PERF_POLICY_RELIABILITY",
}
"""What can hold a GPU's clocks down, by the policy that counts for how long it has."""


class Gpu:
    """One GPU. Every method returns None, or leaves out, what this driver or GPU does not tell."""

    def __init__(self, library: ModuleType, handle: Any) -> None:
        self._library = library
        self._handle = handle
        self.errors: dict[str, str] = {}
        """By question, why the driver did not answer one that this GPU has an answer for."""

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; Volta and later."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def limited_s(self) -> dict[str, float]:
        """Seconds for which each of ``LIMITS`` has held the clocks down, since the driver was loaded."""
        found = {}
        for name, policy in LIMITS.items():
            status = self._ask("nvmlDeviceGetViolationStatus", getattr(self._library, policy))
            if status is not None:
                found[name] = status.violationTime / 1e9
        return found

    def clock_hz(self) -> float | None:
        """What the streaming multiprocessors run at now."""
        mhz = self._ask("nvmlDeviceGetClockInfo", self._library.NVML_CLOCK_SM)
        return None if mhz is None else mhz * 1e6

    def processes(self) -> int | None:
        """How many processes have a compute context on it."""
        listed = self._ask("nvmlDeviceGetComputeRunningProcesses")
        return None if listed is None else len(listed)

    def _ask(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._library, function)(self._handle, *arguments)
        except self._library.NVMLError as error:
            if getattr(error, "value", None) != getattr(self._library, "NVML_ERROR_NOT_SUPPORTED", None):
                self.errors[function] = str(error)
            return None


def gpu(device: torch.device) -> Gpu | None:
    """The GPU behind a torch device; None without nvidia-ml-py or a driver that it can ask."""
    import torch

    library = load()
    if library is None:
        return None
    try:
        library.nvmlInit()
        # By UUID: NVML numbers all GPUs of the machine, torch those of CUDA_VISIBLE_DEVICES.
        uuid = str(torch.cuda.get_device_properties(device).uuid).removeprefix("GPU-")
        handle = library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except library.NVMLError:
        return None
    return Gpu(library, handle)


def why_not() -> str:
    """Why NVML tells nothing; empty if it does."""
    library = load()
    if library is None:
        return "nvidia-ml-py is not installed (pip install nvidia-ml-py)"
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        return f"NVML: {error}"
    return ""


def load() -> ModuleType | None:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None
