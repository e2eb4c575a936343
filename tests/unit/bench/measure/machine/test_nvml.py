"""What the driver reports of GPUs, and what is recorded where it does not answer."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from bench.measure.machine import environment, nvml


class Driver(SimpleNamespace):
    """NVML over one GPU that has no utilization counter and lists one process of another user."""

    def __init__(self) -> None:
        names = [name for name in dir(pynvml) if name.startswith("NVML_")] + ["NVMLError", "nvmlMemory_v2"]
        super().__init__(**{name: getattr(pynvml, name) for name in names})
        self.nvmlInit = lambda: None
        self.nvmlSystemGetDriverVersion = lambda: "580.10"
        self.nvmlDeviceGetCount = lambda: 1
        self.nvmlDeviceGetHandleByIndex = lambda index: index
        self.nvmlDeviceGetName = lambda gpu: "NVIDIA H200"
        self.nvmlDeviceGetUUID = lambda gpu: "GPU-a"
        self.nvmlDeviceGetMemoryInfo = lambda gpu, version: SimpleNamespace(total=143771 << 20, used=4 << 20)
        self.nvmlDeviceGetUtilizationRates = self.unsupported
        self.nvmlDeviceGetTemperature = lambda gpu, sensor: 31
        self.nvmlDeviceGetClockInfo = lambda gpu, kind: 345
        self.nvmlDeviceGetMaxClockInfo = lambda gpu, kind: 1980
        self.nvmlDeviceGetPersistenceMode = lambda gpu: pynvml.NVML_FEATURE_DISABLED
        listed = [SimpleNamespace(pid=12, usedGpuMemory=7 << 20), SimpleNamespace(pid=13, usedGpuMemory=None)]
        self.nvmlDeviceGetComputeRunningProcesses = lambda gpu: listed

    def unsupported(self, *arguments: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    library = Driver()
    monkeypatch.setattr(nvml, "pynvml", library)
    return library


def test_a_gpu_has_the_values_that_its_driver_reports(driver: Driver) -> None:
    (gpu,) = nvml.states()
    assert (gpu.name, gpu.driver_version, gpu.used_bytes, gpu.clock_hz) == ("NVIDIA H200", "580.10", 4 << 20, 345e6)
    assert gpu.busy_percent is None and gpu.is_persistent is False
    assert environment.gpus() == [
        {
            "name": "NVIDIA H200",
            "driver_version": "580.10",
            "memory.total": "143771 MiB",
            "clocks.max.sm": "1980 MHz",
        }
    ]


def test_memory_of_a_process_is_known_where_the_driver_lists_it(driver: Driver) -> None:
    gpu = nvml.Gpu(0)
    assert [gpu.process_bytes(pid) for pid in (12, 13, 14)] == [7 << 20, None, None]
    assert gpu.processes() == 2


def test_a_driver_that_does_not_answer_is_not_a_machine_without_gpus(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(code: int) -> None:
        def init() -> None:
            raise pynvml.NVMLError(code)

        monkeypatch.setattr(driver, "nvmlInit", init)

    fails(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    assert nvml.states() == [] and "mismatch" in nvml.why_not().lower()
    fails(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    assert nvml.states() == [] and nvml.why_not() == ""
