"""Interference with the measured steps: counters read before and after them, untimed.

The first rank of a host reads what the host has once: processors, control group, clocks. The first rank on a GPU reads
that GPU, and each rank on a GPU its own allocator; over gloo the first rank on a host reads its interface. What a
machine does not show is left out, never zero. Judging is ``bench.measure.verdicts``'s.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure.communication.interface_bytes import Interface
from bench.measure.machine import limits, nvml
from bench.measure.machine.energy import Meter
from bench.placement import Placement
from results.conditions import GPU_LIMITS
from results.launches import Interference

if TYPE_CHECKING:
    import torch

PROC = Path("/proc")
CPUS = Path("/sys/devices/system/cpu")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

WIRE = "bytes on the wire"
OF_GPU = "throttling, energy and processes of the GPU"
NAMED = 3
"""How many other processes are named."""


@dataclass(frozen=True)
class Process:
    name: str
    parent: int
    cpu_s: float


@dataclass(frozen=True)
class ClockReading:
    """The same moment on three clocks, in seconds."""

    wall: float
    monotonic: float
    raw: float
    """As the hardware ticks, without the corrections of a time daemon."""


@dataclass(frozen=True)
class MachineCounters:
    """Counters since boot, which the first rank of a host reads."""

    clocks: ClockReading
    busy_s: float
    """CPU seconds of all processes, on the CPUs that this one may use."""
    stolen_s: float
    """CPU seconds that the hypervisor gave to other guests."""
    throttling: dict[str, float]
    unread: dict[str, str]
    """What could not be read, and why."""
    processes: dict[int, Process]


class Watch:
    """The conditions of one rank's measured steps."""

    def __init__(self, placement: Placement, device: torch.device, interface: Interface | None = None) -> None:
        """``interface``: whose bytes this rank counts."""
        self._placement, self._device, self._interface = placement, device, interface
        self._unread: dict[str, str] = {}
        self._machine: MachineCounters | None = None
        self._meter: Meter | None = None
        self._gpu: nvml.Gpu | None = None
        self._ranks_on_gpu = 0
        if device.type == "cuda":
            import torch

            gpus = torch.cuda.device_count()
            rank, ranks = placement.local_rank, placement.local_ranks
            if rank < gpus:
                self._gpu, unread = nvml.gpu(device)
                self._unread = {OF_GPU: unread} if unread else {}
                self._ranks_on_gpu = len(range(rank, ranks, gpus))
        self._counters: dict[str, float] = {}
        self._clock_hz: float | None = None

    def read_host(self) -> None:
        """Reads the counters of the whole host. That takes a while where it has many processes."""
        if self._placement.leads_host:
            self._machine = read_machine()

    def begin(self) -> None:
        """Reads all counters, energy last; the measured steps follow. Those of the host only if not read before."""
        if self._machine is None:
            self.read_host()
        self._clock_hz = self._gpu.clock_hz() if self._gpu else None
        if self._placement.leads_host:
            self._meter = Meter()
        self._counters = self._read_device()

    def end(self) -> Interference:
        """The interference since ``begin``."""
        counters = self._read_device()
        conditions = {name: value - self._counters[name] for name, value in counters.items() if name in self._counters}
        joules = self._meter.joules() if self._meter else None
        if joules is not None:
            conditions["cpu_energy_j"] = joules
        if self._gpu:
            conditions |= self._gauges(self._gpu)
        others: dict[str, float] = {}
        if self._machine:
            of_machine, others = between(self._machine, read_machine(), os.getppid())
            conditions |= of_machine
        unread = (self._machine.unread if self._machine else {}) | (self._gpu.errors if self._gpu else {})
        if self._meter and self._meter.error:
            unread["energy of the processor"] = self._meter.error
        return Interference(conditions=conditions, background_processes=others, not_measured=unread | self._unread)

    def _read_device(self) -> dict[str, float]:
        counters: dict[str, float] = {}
        if self._interface:
            try:
                counters["wire_sent_bytes"] = self._interface.sent_bytes()
            except (OSError, ValueError) as error:
                self._unread[WIRE] = str(error)
        if self._device.type == "cuda":
            import torch

            counters["alloc_retries"] = float(torch.cuda.memory_stats(self._device).get("num_alloc_retries", 0))
        if self._gpu:
            limited_s = self._gpu.limited_s()
            counters |= {name: limited_s[cause] for name, cause in GPU_LIMITS.items() if cause in limited_s}
            joules = self._gpu.energy_j()
            if joules is not None:
                counters["gpu_energy_j"] = joules
        return counters

    def _gauges(self, gpu: nvml.Gpu) -> dict[str, float]:
        gauges, clock_hz, processes = {}, gpu.clock_hz(), gpu.processes()
        if clock_hz and self._clock_hz:
            gauges["gpu_clock_change"] = clock_hz / self._clock_hz - 1
        if processes is not None:  # counted: a container may see the ids of another namespace
            gauges["gpu_background_processes"] = float(max(0, processes - self._ranks_on_gpu))
        return gauges


def read_machine() -> MachineCounters:
    clocks = read_clocks()
    busy_s, stolen_s = cpu_s((PROC / "stat").read_text(), os.sched_getaffinity(0))
    throttling: dict[str, float] = {}
    unread: dict[str, str] = {}
    try:
        places = limits.groups("cpu")
    except OSError as error:
        places, unread["throttling by the CPU quota"] = [], str(error)
    for place in places:
        try:
            of_group = throttled((place / "cpu.stat").read_text())
        except FileNotFoundError:
            continue  # a group that this namespace does not show
        except OSError as error:
            unread["throttling by the CPU quota"] = f"cpu.stat: {error.strerror}"
            continue
        for name, value in of_group.items():
            throttling[name] = throttling.get(name, 0.0) + value
    hot, unread_hot = thermal_throttles()
    throttling |= hot
    if unread_hot:
        unread["thermal throttling"] = unread_hot
    return MachineCounters(clocks, busy_s, stolen_s, throttling, unread, read_processes())


def between(before: MachineCounters, after: MachineCounters, server: int) -> tuple[dict[str, float], dict[str, float]]:
    """Changes of the counters, and the CPU seconds of the other processes that used most, by name.

    Ours are the sweep's process, its fork server (``server``) and all that descend from that. ``background_cpu_s`` is
    what the CPUs did less what ours did, so it holds processes too short-lived to be named.
    """
    monotonic_s = after.clocks.monotonic - before.clocks.monotonic
    mine = ours(after.processes, server)
    used = {
        pid: process.cpu_s - before.processes[pid].cpu_s if pid in before.processes else process.cpu_s
        for pid, process in after.processes.items()
    }
    own_s = sum(seconds for pid, seconds in used.items() if pid in mine)
    changes = {
        "window_s": monotonic_s,
        "cpus": float(len(os.sched_getaffinity(0))),
        "own_cpu_s": own_s,
        "background_cpu_s": after.busy_s - before.busy_s - own_s,
        "stolen_cpu_s": after.stolen_s - before.stolen_s,
        "clock_step_s": after.clocks.wall - before.clocks.wall - monotonic_s,
        "clock_slew_s": monotonic_s - (after.clocks.raw - before.clocks.raw),
    }
    changes |= {name: value - before.throttling.get(name, 0.0) for name, value in after.throttling.items()}
    named: dict[str, float] = {}
    for pid, seconds in used.items():
        if pid not in mine and seconds > 0:
            name = after.processes[pid].name
            named[name] = named.get(name, 0.0) + seconds
    return changes, dict(sorted(named.items(), key=lambda entry: -entry[1])[:NAMED])


def read_clocks() -> ClockReading:
    """All clocks as close together as three tries get them."""
    tries = []
    for _ in range(3):
        first = time.perf_counter()
        wall, raw = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        last = time.perf_counter()
        tries.append((last - first, ClockReading(wall, (first + last) / 2, raw)))
    return min(tries, key=lambda entry: entry[0])[1]


def cpu_s(stat: str, cpus: Iterable[int]) -> tuple[float, float]:
    """Seconds for which ``cpus`` ran processes, and for which they were stolen, from the text of /proc/stat.

    Interrupts are left out: those of the network serve our own ranks.
    """
    wanted = {f"cpu{cpu}" for cpu in cpus}
    busy = stolen = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name in wanted:  # user nice system idle iowait irq softirq steal
            busy += sum(map(int, fields[:3]))
            stolen += int(fields[7]) if len(fields) > 7 else 0
    return busy / TICKS_PER_S, stolen / TICKS_PER_S


def throttled(stat: str) -> dict[str, float]:
    """Throttling by a group's quota, from the text of cpu.stat of either version; empty where it has none."""
    values = dict(line.split() for line in stat.splitlines() if len(line.split()) == 2)
    if "nr_throttled" not in values:
        return {}
    seconds = int(values["throttled_usec"]) / 1e6 if "throttled_usec" in values else int(values["throttled_time"]) / 1e9
    return {"throttled_periods": float(values["nr_throttled"]), "throttled_s": seconds}


def thermal_throttles() -> tuple[dict[str, float], str]:
    """Thermal events of the cores and packages that this process may use, and why they are not counted.

    Both are empty where the machine has no such counter. Every CPU of a core, or of a package, counts the same event.
    """
    counts: dict[tuple[str, ...], int] = {}
    for cpu in os.sched_getaffinity(0):
        place = CPUS / f"cpu{cpu}"
        for name, whose in (("core", ("physical_package_id", "core_id")), ("package", ("physical_package_id",))):
            counter = place / "thermal_throttle" / f"{name}_throttle_count"
            try:
                count = int(_text(counter))
                part = (name, *(_text(place / "topology" / number) for number in whose))
            except FileNotFoundError:
                continue  # a processor or a guest without such counters
            except (OSError, ValueError) as error:
                return {}, f"{place.name}/{counter.name}: {getattr(error, 'strerror', None) or error}"
            counts[part] = max(counts.get(part, 0), count)
    return {"thermal_throttles": float(sum(counts.values()))} if counts else {}, ""


def _text(place: Path) -> str:
    return place.read_text().strip()


def read_processes() -> dict[int, Process]:
    """Every process that this one can see, with its CPU seconds so far.

    Not psutil's: it takes 2.5 times as long (25 against 10 ms of CPU time for 200 processes).
    """
    processes = {}
    for name in os.listdir(PROC):
        if name.isdecimal():
            with contextlib.suppress(OSError):  # ended meanwhile, or hidden
                processes[int(name)] = process((PROC / name / "stat").read_text())
    return processes


def process(stat: str) -> Process:
    """From the text of /proc/PID/stat, where the name may hold spaces and brackets."""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Process(name, int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS_PER_S)


def ours(processes: dict[int, Process], server: int) -> set[int]:
    """The fork server, all that descend from it, and its parent."""
    children: dict[int, list[int]] = {}
    for pid, entry in processes.items():
        children.setdefault(entry.parent, []).append(pid)
    pids, left = set(), [server]
    while left:
        pid = left.pop()
        pids.add(pid)
        left += children.get(pid, [])
    if server in processes:
        pids.add(processes[server].parent)
    return pids
