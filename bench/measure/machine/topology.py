"""Topology of the machine: NUMA nodes, limits of control groups, and links between GPUs.

Nothing here names this one machine: no serial number, UUID or address.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from bench.measure.machine import limits, nvml
from results.environment import Environment

ANCESTORS = {0: "same board", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
"""NVML's common ancestors of two GPUs, as ``nvidia-smi topo -m`` abbreviates them."""
UNNAMED = "?"
SWITCH = "switch"
"""The far end of an NVLink that goes to an NVSwitch, by which all GPUs are joined."""


def collect() -> Environment:
    """The layout in JSON types; None or empty where the machine does not say."""
    library = nvml.library()
    return {
        "logical_cores": psutil.cpu_count(),
        "numa_nodes": numa_nodes(),
        "cgroup": limits.read().by_name,
        "gpu_links": gpu_links(library)[0] if library else [],
    }


def numa_nodes(folder: Path = Path("/sys/devices/system/node")) -> int | None:
    return sum(bool(re.fullmatch(r"node\d+", path.name)) for path in folder.glob("*")) or None


def why_no_links() -> str:
    """Why the driver does not say how GPUs are joined; empty if it does, and without a driver that answers."""
    library = nvml.library()
    return gpu_links(library)[1] if library and nvml.states() else ""


def gpu_links(library: ModuleType) -> tuple[list[list[str]], str]:
    """A row for each GPU, as ``nvidia-smi topo -m`` prints it: X itself, NV4 four NVLinks, else how PCIe joins them.

    And what the driver answered in their place; empty if it named all.
    """
    try:
        library.nvmlInit()
        handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
        addresses = [_text(library.nvmlDeviceGetPciInfo(handle).busId) for handle in handles]
    except library.NVMLError as error:
        return [], f"NVML: {error}"
    lines = [_nvlinks(library, handle) for handle in handles]
    rows = [
        [
            "X" if one == other else _link(library, handles[one], handles[other], lines[one], addresses[other])
            for other in range(len(handles))
        ]
        for one in range(len(handles))
    ]
    unnamed = sum(row.count(UNNAMED) for row in rows)
    return rows, f"NVML names no link for {unnamed} of {len(rows) * (len(rows) - 1)} pairs of GPUs" if unnamed else ""


def _link(library: ModuleType, one: Any, other: Any, ends: list[str], address: str) -> str:
    direct = ends.count(address)
    switched = ends.count(SWITCH)
    if direct or switched:
        return f"NV{direct or switched}"
    try:
        level = library.nvmlDeviceGetTopologyCommonAncestor(one, other)
    except library.NVMLError:
        return UNNAMED
    return ANCESTORS.get(int(level), UNNAMED)


def _nvlinks(library: ModuleType, handle: Any) -> list[str]:
    """The far end of each active NVLink: the PCI address of a GPU, or ``SWITCH``."""
    ends = []
    for link in range(library.NVML_NVLINK_MAX_LINKS):
        try:
            if not library.nvmlDeviceGetNvLinkState(handle, link):
                continue
            kind = library.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link)
            if kind == library.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                ends.append(SWITCH)
            else:
                ends.append(_text(library.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId))
        except library.NVMLError:
            break
    return ends


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
