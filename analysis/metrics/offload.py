"""Model state in host memory: measured and predicted, and what is copied between device and host in a step."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.theory import Copied, predict_copied, predict_counted_host, predict_host_state
from results.record import Record

HOST_KINDS = ("params", "master", "grads", "optimizer")
"""Of model state in host memory."""


@dataclass(frozen=True)
class Offloaded:
    """Bytes of one configuration with offload, on the rank that holds most; None where nothing was measured or there is
    no formula."""

    state: dict[str, int] | None
    """Model state in host memory by kind."""
    predicted: dict[str, int] | None
    counted_predicted_bytes: int | None
    """Predicted host state that the device's allocator counts: all on a CPU, none on a GPU."""
    to_host_bytes: int | None
    """Copied from device to host memory in a step, by any operator of the rank."""
    to_device_bytes: int | None
    copied_predicted: Copied | None
    host_is_device: bool
    """Whether host and device are the same memory, so that offload saves none."""

    @property
    def state_bytes(self) -> int | None:
        return None if self.state is None else sum(self.state.values())

    @property
    def predicted_bytes(self) -> int | None:
        return None if self.predicted is None else sum(self.predicted.values())


def offloaded(record: Record) -> Offloaded | None:
    """The host side of a configuration; None without offload."""
    if record.config.get("offload") in (None, "none"):
        return None
    fullest = max(record.memory, key=lambda rank: sum(rank.host_state_bytes.values()), default=None)
    to_host = [rank.copied_to_host_bytes for rank in record.memory if rank.copied_to_host_bytes is not None]
    to_device = [rank.copied_to_device_bytes for rank in record.memory if rank.copied_to_device_bytes is not None]
    return Offloaded(
        state=fullest.host_state_bytes if fullest else None,
        predicted=predict_host_state(record),
        counted_predicted_bytes=predict_counted_host(record),
        to_host_bytes=max(to_host, default=None),
        to_device_bytes=max(to_device, default=None),
        copied_predicted=predict_copied(record),
        host_is_device=bool((record.resolved.get("engine") or {}).get("host_is_device")),
    )


def columns(host: Offloaded | None) -> dict[str, float | str | None]:
    """Columns of summary.csv; empty without offload."""
    state, predicted = (host.state or {}, host.predicted or {}) if host else ({}, {})
    copied = host.copied_predicted if host else None
    return {
        "host_state_bytes": host.state_bytes if host else None,
        "host_state_predicted_bytes": host.predicted_bytes if host else None,
        "peak_host_predicted_bytes": host.counted_predicted_bytes if host else None,
        "copied_to_host_bytes": host.to_host_bytes if host else None,
        "copied_to_host_predicted_bytes": copied.to_host if copied else None,
        "copied_to_device_bytes": host.to_device_bytes if host else None,
        "copied_to_device_predicted_bytes": copied.to_device if copied else None,
        **{f"host_{kind}_bytes": state.get(kind, 0) if state else None for kind in HOST_KINDS},
        **{f"host_{kind}_predicted_bytes": predicted.get(kind, 0) if predicted else None for kind in HOST_KINDS},
    }
