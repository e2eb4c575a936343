"""The layout of a machine: what bounds the control group, and the links that NVML tells of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.measure.machine import topology


class NVMLError(Exception):
    """As pynvml raises it."""


def library(links: dict[int, list[str]], ancestors: dict[frozenset[int], int]) -> Any:
    """A made-up NVML: the far ends of each GPU's NVLinks (a PCI address, or ``switch``), and common ancestors."""

    def far_end(gpu: int, link: int) -> str:
        if link >= len(links[gpu]):
            raise NVMLError("no such link")
        return links[gpu][link]

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_NVLINK_MAX_LINKS=18,
        NVML_NVLINK_DEVICE_TYPE_SWITCH=2,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(links),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetPciInfo=lambda gpu: SimpleNamespace(busId=f"pci{gpu}".encode()),
        nvmlDeviceGetNvLinkState=lambda gpu, link: far_end(gpu, link) != "down",
        nvmlDeviceGetNvLinkRemoteDeviceType=lambda gpu, link: 2 if far_end(gpu, link) == "switch" else 0,
        nvmlDeviceGetNvLinkRemotePciInfo=lambda gpu, link: SimpleNamespace(busId=far_end(gpu, link).encode()),
        nvmlDeviceGetTopologyCommonAncestor=lambda one, other: ancestors[frozenset((one, other))],
    )


def test_gpus_behind_switches_see_each_other_over_all_their_links() -> None:
    links = topology.gpu_links(library({0: ["switch"] * 18, 1: ["switch"] * 18}, {}))
    assert links == ([["X", "NV18"], ["NV18", "X"]], "")


def test_links_are_counted_by_pair_and_the_rest_is_pcie() -> None:
    ends = {0: ["pci1", "pci1", "down"], 1: ["pci0", "pci0"], 2: []}
    ancestors = {frozenset((0, 2)): 30, frozenset((1, 2)): 50}
    rows = [["X", "NV2", "PHB"], ["NV2", "X", "SYS"], ["PHB", "SYS", "X"]]
    assert topology.gpu_links(library(ends, ancestors)) == (rows, "")
    _, unnamed = topology.gpu_links(library(ends, ancestors | {frozenset((1, 2)): 99}))
    assert unnamed == "NVML names no link for 2 of 6 pairs of GPUs"


def test_a_driver_that_does_not_answer_has_no_links_and_a_reason() -> None:
    silent = library({}, {})

    def fail() -> None:
        raise NVMLError("driver not loaded")

    silent.nvmlInit = fail
    assert topology.gpu_links(silent) == ([], "NVML: driver not loaded")


def test_numa_nodes_are_counted(tmp_path: Path) -> None:
    for name in ("node0", "node1", "possible"):
        (tmp_path / name).touch()
    assert topology.numa_nodes(tmp_path) == 2
