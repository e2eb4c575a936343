"""Verdicts: what a reader has to know before using a cell's numbers. They flag a cell and never drop it."""

from __future__ import annotations

import math

from bench.record import Record

ENOUGH_LAUNCHES = 6
"""The fewest launches whose range covers the median with 95 % probability: 1 - 2*(1/2)^6 = 96.9 %."""


def verdicts(record: Record, oversubscribed: bool) -> list[str]:
    found = []
    if oversubscribed:
        found.append("oversubscribed")
    if record.model and record.model.synthetic_data:
        found.append("synthetic_data")
    if record.resolved.get("outside_parity"):
        found.append("outside_parity")
    elif record.launches and record.parity is None:
        found.append("parity_unchecked")
    if record.resolved.get("servers"):
        found.append("state_on_servers")
    if record.config["straggler"]["rank"] is not None:
        found.append("straggler")
    if record.config["network"]["kind"] != "none":
        found.append("shaped_network")
    if record.config["data_skew"] != "none":
        found.append("skewed_data")
    if record.final_loss is not None and not math.isfinite(record.final_loss):
        found.append("loss_not_finite")
    if record.launches and len(record.launches) < ENOUGH_LAUNCHES:
        found.append("too_few_launches")
    return found
