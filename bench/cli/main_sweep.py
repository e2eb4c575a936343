"""The main sweep fits the machine: its world sizes, and whether it runs on CPUs or on GPUs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.measure.machine import nvml
from bench.measure.machine.limits import usable_cores

MAX_CPU_RANKS = 8
"""Largest world size of the sweep on CPUs, however many cores there are."""


def for_this_machine(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``experiment=default`` replaced by ``experiment=gpu`` where GPUs are visible.

    ``device=cpu`` keeps the sweep on CPUs. Prints one line on stderr if it replaces it.
    """
    if "experiment=default" not in arguments or "device=cpu" in arguments:
        return list(arguments)
    gpus = len(nvml.visible(nvml.states()))
    if not gpus:
        return list(arguments)
    print(
        f"{gpus} GPU{'' if gpus == 1 else 's'} visible: experiment=gpu (device=cpu runs the sweep on CPUs)",
        file=sys.stderr,
    )
    return ["experiment=gpu" if argument == "experiment=default" else argument for argument in arguments]


def world_sizes(device: str) -> str:
    """Powers of two up to the GPUs or the cores of this machine, and their number itself, as a sweep's values.

    Each rank has a GPU or a core of its own, so that no configuration is oversubscribed.
    """
    count = len(nvml.visible(nvml.states())) if device == "cuda" else min(int(usable_cores()), MAX_CPU_RANKS)
    return ",".join(map(str, sizes_up_to(max(1, count))))


def sizes_up_to(count: int) -> list[int]:
    """1, 2, 4, ... and ``count``."""
    return sorted({2**power for power in range(count.bit_length())} | {count})
