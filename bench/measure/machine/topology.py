"""How the machine is laid out: NUMA nodes, what the control group bounds, and the links between GPUs.

Nothing here names this one machine: no serial number, UUID or address.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from bench.measure.machine import limits, nvml

ANCESTORS = {0: "same board", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
"""NVML's common ancestors of two GPUs, as ``nvidia-smi topo -m`` abbreviates them."""
SWITCH = "switch"
"""The far end of an NVLink that goes to an NVSwitch, by which all GPUs are joined."""


def collect() -> dict[str, Any]:
    """The layout in JSON types; None or empty where the machine does not say."""
    return {
        "logical_cores": psutil.cpu_count(),
        "numa_nodes": numa_nodes(),
        "cgroup": limits.read().by_name,
        "gpu_links": gpu_links(nvml.pynvml) if nvml.pynvml else [],
    }


def numa_nodes(folder: Path = Path("/sys/devices/system/node")) -> int | None:
    return sum(bool(re.fullmatch(r"node\d+", path.name)) for path in folder.glob("*")) or None


def gpu_links(library: ModuleType) -> list[list[str]]:
    """A row for each GPU, as ``nvidia-smi topo -m`` prints it: X itself, NV4 four NVLinks, else how PCIe joins them."""
    try:
        library.nvmlInit()
        handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
        addresses = [_text(library.nvmlDeviceGetPciInfo(handle).busId) for handle in handles]
    except library.NVMLError:
        return []
    lines = [_nvlinks(library, handle) for handle in handles]
    return [
        [
            "X" if one == other else _link(library, handles[one], handles[other], lines[one], addresses[other])
            for other in range(len(handles))
        ]
        for one in range(len(handles))
    ]


def _link(library: ModuleType, one: Any, other: Any, ends: list[str], address: str) -> str:
    direct = ends.count(address)
    switched = ends.count(SWITCH)
    if direct or switched:
        return f"NV{direct or switched}"
    try:
        level = library.nvmlDeviceGetTopologyCommonAncestor(one, other)
    except library.NVMLError:
        return "?"
    return ANCESTORS.get(int(level), "?")


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
