"""What more ranks bring."""

from __future__ import annotations

from typing import Any

from analysis.metrics.scaling import Efficiency, efficiencies
from claims.claim import Finding, Register, by_parts, claim
from claims.suite import ExperimentError, Suite
from results.record import world_size

CLAIMS: Register = []
RANKS = (1, 2, 4)
MOST = RANKS[-1]
SEVERAL = 3.0
EFFICIENT = 0.8
RATES = ("1gbit", "50mbit")
CURVE = ("engine=torch", f"gpus={','.join(map(str, RANKS))}", "repeats=5", "measure=time", "measure.ceiling=false")
"""Five launches each, from which an interval has a level of 94 %."""


def sleeping(forward_s: float) -> tuple[str, ...]:
    """Four layers that sleep, backward for twice as long: each rank takes the time that it would with its own core."""
    return "workload=calibrated", f"workload.forward_s={forward_s}", f"workload.backward_s={2 * forward_s}", "steps=8"


def curves(suite: Suite, *overrides: str) -> dict[tuple[str | None, int], Efficiency]:
    """Weak scaling efficiency of DDP by the rate of the links (None: this machine) and the number of ranks."""
    records = suite.sweep(*CURVE, *overrides)
    by_rate = {}
    for record, efficiency in zip(records, efficiencies(records), strict=True):
        if efficiency is None:
            raise ExperimentError(f"{record.cell_id}: {record.status} {record.reason}")
        by_rate[record.config["network"]["rate"], world_size(record)] = efficiency
    return by_rate


def efficiency_text(efficiency: Efficiency, times: float = 1.0) -> str:
    """Such as ``3.80 (3.71 to 3.85)``."""
    interval = efficiency.interval
    return f"{times * interval.value:.2f} ({times * interval.low:.2f} to {times * interval.high:.2f})"


def at_least(least: float, efficiency: Efficiency, times: float = 1.0) -> bool:
    """Raises ExperimentError where the interval is on both sides: then nothing was decided."""
    if times * efficiency.interval.low < least <= times * efficiency.interval.high:
        raise ExperimentError(
            f"{efficiency_text(efficiency, times)} is on both sides of {least:g}: measure on an idle machine"
        )
    return times * efficiency.interval.value >= least


def numbers_of(curve: dict[tuple[str | None, int], Efficiency], where: str) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for (_, ranks), efficiency in curve.items():
        interval = efficiency.interval
        numbers |= {
            f"{where}, {ranks} ranks, efficiency": interval.value,
            f"{where}, {ranks} ranks, efficiency, low": interval.low,
            f"{where}, {ranks} ranks, efficiency, high": interval.high,
        }
    return numbers


@claim(
    CLAIMS,
    "A30",
    "Distributed training is several times as fast.",
    "Throughput of DDP on four ranks over one rank's, the batch growing with them; several times is at least 3, by "
    "the whole interval. Ranks that take as long as with a core each (layers that sleep), and ranks that share this "
    "machine's cores (digits); partly if only one of them is.",
    timed=True,
)
def several_times_as_fast(suite: Suite) -> Finding:
    apart = curves(suite, *sleeping(0.02))
    together = curves(suite, "workload=digits", "steps=20", "threads=1")
    at_most = [apart[None, MOST], together[None, MOST]]
    because = (
        f"Four ranks are {efficiency_text(at_most[0], MOST)} times as fast as one where each has what it needs, and "
        f"{efficiency_text(at_most[1], MOST)} times where they share cores, which allow {MOST * at_most[1].cap:.2g}."
    )
    numbers = numbers_of(apart, "layers that sleep") | numbers_of(together, "digits")
    numbers[f"digits, {MOST} ranks, cap by shared cores"] = at_most[1].cap
    return by_parts([at_least(SEVERAL, efficiency, MOST) for efficiency in at_most], because, numbers)


@claim(
    CLAIMS,
    "A31",
    "Distribution shortens training from days to hours, or from weeks to days.",
    "Hours to a target loss of one job that takes days on one device, on one and on many.",
    measured=False,
)
def days_to_hours(suite: Suite) -> Finding:
    del suite
    because = "It takes a job of days on one GPU, run to the same loss on one and on 24 or more, several times each."
    return Finding("not testable here", because)


@claim(
    CLAIMS,
    "A43",
    "DDP scales by adding nodes.",
    "Weak scaling efficiency of DDP on four hosts with network emulation, one rank each, steps of 0.12 s and 1 MiB of "
    "gradients, behind links of 1 Gbit/s and of 50 Mbit/s: at least 0.8, by the whole interval. Partly if only "
    "behind one of them.",
    timed=True,
)
def scales_by_adding_nodes(suite: Suite) -> Finding:
    curve = curves(suite, *sleeping(0.01), "network=lab", f"network.rate={','.join(RATES)}", "network.delay=100us")
    at_most = {rate: curve[rate, MOST] for rate in RATES}
    because = (
        f"Four hosts have an efficiency of {efficiency_text(at_most['1gbit'])} behind links of 1 Gbit/s and of "
        f"{efficiency_text(at_most['50mbit'])} behind 50 Mbit/s."
    )
    numbers: dict[str, Any] = {}
    for rate in RATES:
        numbers |= numbers_of({key: efficiency for key, efficiency in curve.items() if key[0] == rate}, rate)
    return by_parts([at_least(EFFICIENT, efficiency) for efficiency in at_most.values()], because, numbers)
