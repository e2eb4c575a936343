"""Interference around measured steps: every counter of a launch's ``conditions``, and what a launch keeps of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from results.entries import Entry


@dataclass(frozen=True)
class Condition(Entry):
    """One counter. Those of ranks on one host, or of hosts, are combined to the launch's."""

    adds_up: Literal["", "hosts", "ranks"] = ""
    """``ranks``: a sum over ranks; ``hosts``: over hosts, of one rank each. Else the largest rank counts."""


GPU_LIMITS = {f"gpu_{cause}_limited_s": cause for cause in ("power", "thermal", "board", "reliability")}
"""Conditions that count for how long a GPU's clocks were held down, with the cause."""

CONDITIONS = {
    "window_s": Condition("time around the measured steps", "s"),
    "cpus": Condition("CPUs that may be used", "core"),
    "own_cpu_s": Condition("CPU time of the sweep's own processes", "s"),
    "background_cpu_s": Condition("CPU time of other processes", "s"),
    "stolen_cpu_s": Condition("CPU time that the hypervisor gave to other guests", "s"),
    "clock_step_s": Condition("how far the wall clock was set", "s"),
    "clock_slew_s": Condition("how far the monotonic clock was slewed", "s"),
    "throttled_periods": Condition("periods in which the CPU quota stopped processes"),
    "throttled_s": Condition("time for which the CPU quota stopped processes", "s"),
    "thermal_throttles": Condition("times that the processor was too hot"),
    "wire_sent_bytes": Condition("bytes at the network interface, sent", "B", adds_up="ranks"),
    "cpu_energy_j": Condition("energy of all processor packages", "J", adds_up="hosts"),
    "alloc_retries": Condition("times that a full GPU gave cached memory back", adds_up="ranks"),
    "gpu_energy_j": Condition("energy of the GPUs", "J", adds_up="ranks"),
    "gpu_background_processes": Condition("other processes on the GPUs", adds_up="ranks"),
    "gpu_clock_change": Condition("relative change of a GPU's clock"),
}
CONDITIONS |= {
    name: Condition(f"time for which the {cause} limit held a GPU's clocks down", "s")
    for name, cause in GPU_LIMITS.items()
}
"""By name. A counter that the machine does not have is absent from a launch, never zero."""

SUMS_OF_RANKS = tuple(name for name, condition in CONDITIONS.items() if condition.adds_up == "ranks")
SUMS_OF_HOSTS = tuple(name for name, condition in CONDITIONS.items() if condition.adds_up)
