"""Copies between device and host memory, counted against copies of known size."""

from __future__ import annotations

import torch

from bench.measure.memory.host_copies import HostCopyCounter, why_not_counted


def test_each_way_is_counted_and_nothing_else() -> None:
    host, device, other = torch.zeros(10), torch.zeros(10), torch.zeros(10)
    with HostCopyCounter("cpu", {"master": [host]}) as counted:
        host[:4].copy_(device[:4])
        device[:3].copy_(host[:3])
        device.copy_(other)
        host[5:].copy_(host[:5])
        host.to(torch.bfloat16)
    assert (counted.to_host_bytes, counted.to_device_bytes) == (16, 12)


def test_bytes_are_those_of_the_tensor_on_the_device() -> None:
    host, device = torch.zeros(10), torch.zeros(10, dtype=torch.bfloat16)
    with HostCopyCounter("cpu", {"master": [host]}) as counted:
        host.copy_(device)
        torch._foreach_copy_([device[:5]], [host[:5]])
    assert (counted.to_host_bytes, counted.to_device_bytes) == (20, 10)


def test_where_the_device_has_memory_of_its_own_its_type_decides() -> None:
    host, device = torch.zeros(10), torch.zeros(10, device="meta")
    with HostCopyCounter("meta", {}) as counted:
        device.copy_(host)
        host.to("meta")
    assert (counted.to_host_bytes, counted.to_device_bytes) == (0, 80)


def test_copies_are_not_counted_where_gloo_makes_some_of_its_own() -> None:
    assert [why_not_counted(*case) for case in (("cpu", "gloo"), ("cuda", "nccl"))] == ["", ""]
    assert "use backend=nccl" in why_not_counted("cuda", "gloo")
