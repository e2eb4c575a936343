"""Host, commit and time of a measurement, as columns of the table."""

from __future__ import annotations

from typing import Any

from results.identity import gpus
from results.record import Record

COLUMNS = ["hostname", "gpu_models", "commit", "torch_version", "started_at"]


def columns(record: Record) -> dict[str, Any]:
    """A configuration's ``COLUMNS``; None where the record does not have it.

    ``commit`` ends with ``+changes`` where the code was more than the commit. ``started_at`` is the start of the first
    timed launch, or of the sweep where there is none.
    """
    environment, source = record.environment, record.source
    commit = source.commit if source else str((environment.get("git") or {}).get("commit") or "")
    changed = source.dirty if source else bool((environment.get("git") or {}).get("dirty"))
    first = min((launch.started_at for launch in record.launches), default=None)
    return {
        "hostname": environment.get("hostname"),
        "gpu_models": "; ".join(gpus(environment)) or None,
        "commit": f"{commit}{'+changes' if changed else ''}" if commit else None,
        "torch_version": environment.get("torch"),
        "started_at": first or environment.get("time"),
    }
