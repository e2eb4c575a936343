"""Latency and bandwidth of a message, from collectives that were timed by themselves (``workload=collectives``).

Their line t = a + S·b among n ranks is that of ``fabric.collective_s``: a = p·(n-1)·α and b = p·f/β, with p passes
around a ring and f = (n-1)/n.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from analysis.advice.alpha_beta import fits
from analysis.projection.curve import ScalingCurve
from analysis.projection.fabric import LinkTime, passes
from results.identity import frozen, hardware
from results.record import NO_ENGINE, Record


def measured_line(records: Sequence[Record], curve: ScalingCurve) -> LinkTime | None:
    """The median over kinds and world sizes on the curve's machine, network and backend; None if none was timed."""
    lines = [line for record in records if _is_of(record, curve) for line in _lines(record, curve.backend)]
    if not lines:
        return None
    return LinkTime(
        statistics.median(float(line.alpha_s) for line in lines),
        statistics.median(float(line.s_per_byte) for line in lines),
    )


def _is_of(record: Record, curve: ScalingCurve) -> bool:
    timed = (record.config.get("engine") or {}).get("name") == NO_ENGINE and record.status == "ok" and record.launches
    own = (hardware(record), frozen(record.config.get("network")), str(record.resolved.get("backend")))
    return bool(timed) and own == curve.fabric_key[1:]


def _lines(record: Record, backend: str) -> list[LinkTime]:
    lines = []
    for fit in fits(record):
        times = passes(fit.kind, backend)
        if fit.line and times and fit.line.alpha_s > 0 and fit.ranks > 1:
            steps = times * (fit.ranks - 1)
            lines.append(LinkTime(fit.line.alpha_s / steps, fit.line.s_per_byte / steps * fit.ranks))
    return lines
