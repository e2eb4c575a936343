"""What disturbs a measurement: counters read from known texts, and verdicts on known conditions and step times."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.measure.communication.interface_bytes import Interface
from bench.measure.machine import energy, interference, launch_conditions
from bench.measure.machine.interference import ClockReading, MachineCounters, Process, Watch
from bench.measure.time.steadiness import change, ranks
from bench.measure.verdicts import disturbances
from bench.placement import Placement
from results.launches import Ceiling, Interference, Launch, RankSamples
from results.record import Record

QUIET = {"window_s": 1.0, "cpus": 2.0, "own_cpu_s": 1.5, "background_cpu_s": 0.04, "stolen_cpu_s": 0.0}
CPU = torch.device("cpu")


def launch(steps: list[float] | None = None, **seen: float) -> Launch:
    times = steps or [0.01, 0.01]
    ranks = [RankSamples(times, [0.0] * len(times), [], sum(times), [1.0] * len(times))]
    return Launch(0, "", {}, ranks, conditions=QUIET | seen)


def judged(*launches: Launch) -> dict[str, str]:
    return disturbances(Record("id", "sweep", {}, {}, {}, launches=list(launches)))


def test_cpu_time_is_that_of_our_cpus_without_interrupts_and_steal_apart() -> None:
    # user nice system idle iowait irq softirq steal
    text = (
        "cpu 9 9 9 9 9 9 9 9 0 0\ncpu0 100 20 30 999 9 7 8 5 0 0\ncpu1 1000 0 0 0 0 0 0 70 0 0\ncpu10 1 1 1 0 0 0 0 1\n"
    )
    tick = 1 / interference.TICKS_PER_S
    assert interference.cpu_s(text, [0]) == pytest.approx((150 * tick, 5 * tick))
    assert interference.cpu_s(text, [0, 10]) == pytest.approx((153 * tick, 6 * tick))


def test_a_quota_is_read_in_both_versions_of_control_groups() -> None:
    second = "usage_usec 90\nnr_periods 10\nnr_throttled 3\nthrottled_usec 250000\n"
    first = "nr_periods 10\nnr_throttled 3\nthrottled_time 250000000\n"
    assert (
        interference.throttled(first) == interference.throttled(second) == {"throttled_periods": 3, "throttled_s": 0.25}
    )
    assert interference.throttled("usage_usec 90\nuser_usec 80\n") == {}


def test_a_process_may_have_any_name() -> None:
    fields = " ".join(["S", "7", *["0"] * 9, "150", "50", *["0"] * 30])
    assert interference.process(f"42 (a) R 1 (b) {fields}") == Process("a) R 1 (b", 7, 200 / interference.TICKS_PER_S)


def test_others_are_all_but_the_sweep_its_fork_server_and_what_that_started() -> None:
    parents = {10: 1, 20: 10, 30: 20, 31: 20, 40: 30, 50: 10, 60: 1}
    names = {10: "sweep", 20: "server", 30: "rank", 31: "rank", 40: "loader", 50: "make", 60: "browser"}

    def machine(cpu_s: float, busy_s: float, moment: float, wall: float) -> MachineCounters:
        clocks = ClockReading(wall, moment, moment * 1.00001)
        processes = {pid: Process(names[pid], parent, cpu_s) for pid, parent in parents.items()}
        return MachineCounters(clocks, busy_s, 0.0, {"throttled_s": cpu_s}, {}, processes)

    counters, others = interference.between(machine(1.0, 50.0, 5.0, 100.0), machine(1.25, 52.0, 6.0, 98.0), server=20)
    assert (counters["own_cpu_s"], counters["background_cpu_s"]) == pytest.approx((1.25, 0.75))
    assert (counters["window_s"], counters["clock_step_s"], counters["throttled_s"]) == pytest.approx((1.0, -3.0, 0.25))
    assert counters["clock_slew_s"] == pytest.approx(-1e-5, rel=1e-3)
    assert others == pytest.approx({"make": 0.25, "browser": 0.25})


def test_others_are_flagged_beyond_a_tenth_of_the_cpus_and_what_sampling_explains() -> None:
    assert judged(launch()) == {}
    assert judged(launch(background_cpu_s=0.19)) == judged(launch(background_cpu_s=-0.3)) == {}
    words = judged(launch(), launch(background_cpu_s=0.5), launch(background_cpu_s=1.0))["background_load"]
    assert words.startswith("in 2 of 3 launches; at worst others took 50% of the CPU time")
    # Four ticks of 10 ms are half of what two CPUs have in 40 ms, and may be chance.
    assert judged(launch(window_s=0.04, background_cpu_s=0.04)) == {}
    assert "hypervisor" in judged(launch(stolen_cpu_s=0.6))["background_load"]
    assert "2 other processes on the GPUs" in judged(launch(gpu_background_processes=2))["background_load"]


def test_a_disturbed_ceiling_is_flagged_as_such() -> None:
    record = Record("id", "sweep", {}, {}, {}, launches=[launch()])
    record.ceiling = Ceiling(1e9, "float32", 512, QUIET)
    assert disturbances(record) == {}
    record.ceiling = replace(record.ceiling, conditions=QUIET | {"background_cpu_s": 1.0})
    assert list(disturbances(record)) == ["ceiling_disturbed"]


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        ({"throttled_periods": 3, "throttled_s": 0.25}, "the CPU quota stopped processes for 0.25 s"),
        ({"thermal_throttles": 2}, "too hot 2 times"),
        ({"gpu_thermal_limited_s": 0.3, "gpu_power_limited_s": 0.1}, "the GPU's thermal limit held its clocks down"),
    ],
)
def test_throttling_is_flagged_with_its_cause(seen: dict[str, float], cause: str) -> None:
    assert cause in judged(launch(), launch(**seen))["throttled"]
    assert judged(launch(**dict.fromkeys(seen, 0.0))) == {}


def test_a_retry_of_the_allocator_is_flagged() -> None:
    assert judged(launch(alloc_retries=0.0)) == {}
    assert "4 times the GPU was full" in judged(launch(alloc_retries=4.0))["allocator_retries"]


@pytest.mark.parametrize("by_s", [3.0, -0.5, 0.01])
def test_a_clock_that_is_set_meanwhile_is_detected(monkeypatch: pytest.MonkeyPatch, by_s: float) -> None:
    watch = Watch(Placement(), CPU)
    watch.read_host()
    real = time.time
    monkeypatch.setattr(interference.time, "time", lambda: real() + by_s)
    watch.begin()  # does not read the host again: that takes long, and a loader would read meanwhile
    seen = watch.end().conditions
    assert seen["clock_step_s"] == pytest.approx(by_s, abs=0.002)
    assert "the wall clock was set by" in judged(launch(**seen))["clock_drift"]


def test_clocks_may_part_by_what_reading_and_a_time_daemon_explain() -> None:
    assert judged(launch(clock_step_s=0.001, clock_slew_s=-0.0005, gpu_clock_change=0.03)) == {}
    assert "slewed by -0.005 s" in judged(launch(clock_slew_s=-0.005))["clock_drift"]
    assert "a GPU's clock changed by -20%" in judged(launch(gpu_clock_change=-0.2))["clock_drift"]


def test_places_are_shared_by_equal_values() -> None:
    assert ranks([0.3, 0.1, 0.3, 0.2]) == [3.5, 1, 3.5, 2]


def noise(generator: random.Random, count: int, spread: float = 0.05) -> list[float]:
    """Step times that are alike: lognormal, one in thirty of them five times as long."""
    return [
        0.01 * generator.lognormvariate(0, spread) * (5 if generator.random() < 1 / 30 else 1) for _ in range(count)
    ]


@pytest.mark.parametrize("steps", [20, 45, 150])
def test_steps_that_are_alike_are_called_unsteady_no_more_often_than_stated(steps: int) -> None:
    generator, cells, launches = random.Random(steps), 800, 3
    alarms = sum(
        any(change(noise(generator, steps)).p <= 0.01 / launches for _ in range(launches)) for _ in range(cells)
    )
    assert alarms <= 18  # 8 are expected at most; 19 or more would be chance in 1 of 1000 tries
    assert not any("drift" in judged(launch(noise(generator, steps))) for _ in range(20))


def test_a_drift_and_a_jump_are_detected_at_any_step() -> None:
    generator = random.Random(7)
    flag_counts = {"drift": 0, "jump": 0}
    for _ in range(50):
        drifting = [step * (1 + 0.3 * at / 45) for at, step in enumerate(noise(generator, 45))]
        jumping = [step * (1.2 if at >= 15 else 1.0) for at, step in enumerate(noise(generator, 45))]
        flag_counts["drift"] += "drift" in judged(launch(drifting))
        flag_counts["jump"] += "drift" in judged(launch(jumping))
    assert min(flag_counts.values()) >= 47, flag_counts
    slower = [(0.013 if at >= 22 else 0.01) + 1e-6 * (at * 7 % 15) for at in range(45)]
    assert "steps took 1.30 times as long from step 23 on" in judged(launch(slower))["drift"]


def test_a_change_too_small_to_matter_or_one_odd_step_is_not_flagged() -> None:
    sure = [0.01 + 1e-8 * at for at in range(100)] + [0.0102 + 1e-8 * at for at in range(100)]
    assert change(sure).p < 1e-6 and judged(launch(sure)) == {}
    assert judged(launch([1.0 if at == 20 else 0.01 + 1e-6 * (at * 7 % 45) for at in range(45)])) == {}


def test_a_launch_is_the_sum_of_what_ranks_share_and_the_worst_of_the_rest() -> None:
    seen = launch_conditions.together(
        [
            {"gpu_energy_j": 3.0, "gpu_clock_change": 0.1, "window_s": 1.0},
            {"gpu_energy_j": 4.0, "gpu_clock_change": -0.2},
        ]
    )
    assert seen == {"gpu_energy_j": 7.0, "gpu_clock_change": -0.2, "window_s": 1.0}


class FakeNvml(SimpleNamespace):
    """nvidia-ml-py over two GPUs; counters go on by a set amount with each reading."""

    class NVMLError(Exception):
        value = 3

    NVML_ERROR_NOT_SUPPORTED = 3

    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1
    NVML_PERF_POLICY_BOARD_LIMIT, NVML_PERF_POLICY_RELIABILITY = 3, 5
    NVML_CLOCK_SM = 1

    def __init__(self) -> None:
        super().__init__(energy_mj={"GPU-0": 1_000, "GPU-1": 9_000}, clock_mhz=[1980, 1485], rejected=set())

    def nvmlInit(self) -> None: ...

    def fail(self) -> None:
        raise self.NVMLError

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: str) -> int:
        if gpu in self.rejected:
            raise self.NVMLError
        self.energy_mj[gpu] += 2_500
        return int(self.energy_mj[gpu])

    def nvmlDeviceGetViolationStatus(self, gpu: str, policy: int) -> SimpleNamespace:
        if policy != self.NVML_PERF_POLICY_POWER:
            raise self.NVMLError
        return SimpleNamespace(violationTime=self.energy_mj[gpu] * 100_000)

    def nvmlDeviceGetClockInfo(self, gpu: str, kind: int) -> int:
        return int(self.clock_mhz[0 if self.energy_mj[gpu] < 5_000 else 1])

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: str) -> list[int]:
        return [11, 12, 13]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setattr("bench.measure.machine.nvml.pynvml", fake)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(uuid=str(device.index)))
    monkeypatch.setattr("torch.cuda.memory_stats", lambda device: {"num_alloc_retries": 5})
    return fake


def test_a_gpu_is_read_once_however_many_ranks_share_it(nvml: FakeNvml) -> None:
    places = [(Placement(local_rank=rank, local_ranks=3), torch.device("cuda", rank % 2)) for rank in (1, 2)]
    watches = [Watch(*place) for place in places]  # ranks 0 and 2 share a GPU
    for watch in watches:
        watch.begin()
    own, shared = [watch.end().conditions for watch in watches]
    assert own["gpu_energy_j"] == 2.5 and own["gpu_power_limited_s"] == pytest.approx(0.25)
    assert own["gpu_background_processes"] == 2 and "gpu_thermal_limited_s" not in own
    assert shared == {"alloc_retries": 0.0}
    first = Watch(Placement(local_rank=0, local_ranks=3), torch.device("cuda", 0))
    first.begin()
    nvml.energy_mj["GPU-0"] = 6_000
    seen = first.end().conditions
    assert seen["gpu_background_processes"] == 1  # of three, two are ours
    assert seen["gpu_clock_change"] == pytest.approx(-0.25)


def test_energy_is_not_counted_while_all_processes_are_looked_at(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at, read = [], interference.read_machine

    def look() -> interference.MachineCounters:
        nvml.energy_mj["GPU-0"] += 1_000
        looked_at.append(1)
        return read()

    monkeypatch.setattr(interference, "read_machine", look)
    watch = Watch(Placement(local_rank=0, local_ranks=2), torch.device("cuda", 0))
    watch.begin()
    assert watch.end().conditions["gpu_energy_j"] == 2.5 and len(looked_at) == 2


def test_what_a_gpu_does_not_tell_is_left_out(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.rejected.add("GPU-1")
    watch = Watch(Placement(local_rank=1, local_ranks=2), torch.device("cuda", 1))
    watch.begin()
    assert "gpu_energy_j" not in watch.end().conditions
    monkeypatch.setattr(nvml, "nvmlInit", nvml.fail)
    without = Watch(Placement(local_rank=1, local_ranks=2), torch.device("cuda", 1))
    without.begin()
    assert without.end().conditions == {"alloc_retries": 0.0}


def test_the_energy_of_packages_is_added_up_and_survives_a_counter_that_wraps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert energy.Meter().joules() is None and "shows no counter" in energy.why_not()
    for name, microjoules in (("intel-rapl:0", 5_000_000), ("intel-rapl:0:0", 1), ("intel-rapl:1", 9_500_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(str(microjoules))
        (tmp_path / name / "max_energy_range_uj").write_text("10000000")
    meter = energy.Meter()
    (tmp_path / "intel-rapl:0/energy_uj").write_text("7000000")
    (tmp_path / "intel-rapl:1/energy_uj").write_text("1000000")
    assert meter.joules() == pytest.approx(2.0 + 1.5) and energy.why_not() == ""


def test_the_energy_of_some_packages_is_not_taken_for_that_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    for package in (0, 1):
        (tmp_path / f"intel-rapl:{package}").mkdir()
        (tmp_path / f"intel-rapl:{package}/energy_uj").write_text("1000000")
    meter = energy.Meter()
    (tmp_path / "intel-rapl:1/energy_uj").write_text("not a number")
    assert meter.joules() is None and meter.error.startswith("intel-rapl:1/energy_uj: ")
    assert energy.why_not().startswith("intel-rapl:1/energy_uj: ")


def test_a_counter_that_cannot_be_read_is_named_as_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/proc/self/net/dev")

    monkeypatch.setattr(Interface, "sent_bytes", fail)
    monkeypatch.setattr(interference.limits, "groups", fail)
    watch = Watch(Placement(), CPU, Interface("lo"))
    watch.begin()
    observed = watch.end()
    assert "wire_sent_bytes" not in observed.conditions
    assert "Permission denied" in observed.not_measured["bytes on the wire"]
    assert "Permission denied" in observed.not_measured["throttling by the CPU quota"]


def test_a_sum_to_which_a_rank_could_not_add_its_part_is_not_measured() -> None:
    rejected = {"bytes on the wire": "Permission denied"}
    ranks = [
        Interference(conditions={"wire_sent_bytes": 5000.0, "stolen": 0.1}),
        Interference(not_measured=rejected),
        Interference(conditions={"wire_sent_bytes": -30.0, "stolen": 0.2}),
    ]
    assert launch_conditions.together(launch_conditions.whole_sums(ranks)) == {"stolen": 0.2}
    assert launch_conditions.not_measured(ranks) == {"bytes on the wire": "rank 1: Permission denied"}
    whole = [ranks[0], ranks[2]]
    assert launch_conditions.together(launch_conditions.whole_sums(whole)) == {"wire_sent_bytes": 4970.0, "stolen": 0.2}


def test_a_core_or_a_package_that_was_too_hot_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four CPUs, two to a core, in one package: each of them counts the same five events of the package."""
    for cpu in range(4):
        topology, throttle = (tmp_path / f"cpu{cpu}" / name for name in ("topology", "thermal_throttle"))
        topology.mkdir(parents=True)
        throttle.mkdir()
        (topology / "physical_package_id").write_text("0\n")
        (topology / "core_id").write_text(f"{cpu // 2}\n")
        (throttle / "package_throttle_count").write_text("5\n")
        (throttle / "core_throttle_count").write_text(f"{3 * (cpu // 2)}\n")
    monkeypatch.setattr(interference, "CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert interference.thermal_throttles() == ({"thermal_throttles": 5 + 0 + 3}, "")
    (tmp_path / "cpu3/thermal_throttle/core_throttle_count").write_text("many")
    counted, why = interference.thermal_throttles()
    assert counted == {} and why.startswith("cpu3/core_throttle_count: ")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7})
    assert interference.thermal_throttles() == ({}, "")
