"""What more ranks bring."""

from __future__ import annotations

from typing import Any

from analysis.metrics.scaling import Efficiency, efficiencies
from claims import to_target
from claims.claim import Finding, Register, by_parts, claim
from claims.suite import ExperimentError, Suite
from results.record import Record, world_size

CLAIMS: Register = []
RANKS = (1, 2, 4)
MOST = RANKS[-1]
SEVERAL = 3.0
EFFICIENT = 0.8
SOONER = 1.1
"""How many times as soon counts as sooner."""
RATES = ("1gbit", "50mbit")
RANK_BATCH = 16
LRS = (0.01, 0.03, 0.1, 0.2)
"""Below and above what is fastest for one rank and for four, by trials."""
CURVE = ("engine=torch", f"gpus={','.join(map(str, RANKS))}", "repeats=5", "measure=time", "measure.ceiling=false")
"""Five launches each, from which an interval has a level of 94 %."""
Soonest = dict[tuple[str | None, int], Record]


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


def soonest_by_ranks(suite: Suite, forward_s: float, width: int, *overrides: str) -> Soonest:
    """DDP on one rank and on four, at the learning rate that reaches the loss soonest, by the rate of the links."""
    records = suite.sweep(
        "engine=torch",
        f"gpus=1,{MOST}",
        "workload=module:claims.programs.asleep:AsleepDigits",
        f"workload.kwargs={{forward_s: {forward_s}, backward_s: {2 * forward_s}, width: {width}}}",
        f"batch_size={RANK_BATCH}",
        f"lr={','.join(map(str, LRS))}",
        *to_target.SGD,
        to_target.every_image(RANK_BATCH),  # for four ranks, four times
        "measure=time",
        "measure.ceiling=false",
        "steps=250",
        "repeats=3",
        *overrides,
    )
    by_setting: dict[tuple[str | None, int], list[Record]] = {}
    for record in records:
        by_setting.setdefault((record.config["network"]["rate"], world_size(record)), []).append(record)
    return {key: to_target.soonest(group) for key, group in by_setting.items()}


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


def numbers_to_loss(trained: Soonest, rate: str | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for (of, ranks), record in trained.items():
        if of == rate:
            numbers |= to_target.in_numbers(record, f"{rate}, {ranks} ranks" if rate else f"{ranks} ranks")
    return numbers


@claim(
    CLAIMS,
    "A30",
    "Distributed training is several times as fast.",
    "DDP on four ranks against one, the batch growing with them; several times is at least 3. Throughput, by the whole "
    "interval, of ranks that take as long as with a core each (layers that sleep), and of ranks that share this "
    "machine's cores (digits). How much sooner ranks that sleep reach a loss of 0.3 on digits, each at the best of "
    "four learning rates, median of three launches. Partly if only some are.",
    timed=True,
)
def several_times_as_fast(suite: Suite) -> Finding:
    apart = curves(suite, *sleeping(0.02))
    together = curves(suite, "workload=digits", "steps=20", "threads=1")
    at_most = [apart[None, MOST], together[None, MOST]]
    trained = soonest_by_ranks(suite, 0.01, 8)
    sooner = to_target.times_as_soon(trained[None, MOST], trained[None, 1])
    because = (
        f"Four ranks process {efficiency_text(at_most[0], MOST)} times the samples per second of one where each has "
        f"what it needs, and {efficiency_text(at_most[1], MOST)} times where they share cores, which allow "
        f"{MOST * at_most[1].cap:.2g}. With all they need, they reach the loss {sooner.value:.2f} times as soon."
    )
    numbers = numbers_of(apart, "layers that sleep") | numbers_of(together, "digits")
    numbers[f"digits, {MOST} ranks, cap by shared cores"] = at_most[1].cap
    numbers |= numbers_to_loss(trained, None) | {f"{MOST} ranks, times as soon at the loss": sooner.value}
    fast = [at_least(SEVERAL, efficiency, MOST) for efficiency in at_most]
    return by_parts([*fast, sooner.value >= SEVERAL], because, numbers)


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
    "gradients, behind links of 1 Gbit/s and of 50 Mbit/s: at least 0.8, by the whole interval. Four hosts reach a "
    "loss of 0.3 on digits at least 1.1 times as soon as one, behind the same links. Partly if only some hold.",
    timed=True,
)
def scales_by_adding_nodes(suite: Suite) -> Finding:
    curve = curves(suite, *sleeping(0.01), "network=lab", f"network.rate={','.join(RATES)}", "network.delay=100us")
    at_most = {rate: curve[rate, MOST] for rate in RATES}
    trained = soonest_by_ranks(suite, 0.02, 16, "network=lab", f"network.rate={','.join(RATES)}", "network.delay=100us")
    sooner = {rate: to_target.times_as_soon(trained[rate, MOST], trained[rate, 1]).value for rate in RATES}
    because = (
        f"Four hosts have an efficiency of {efficiency_text(at_most['1gbit'])} behind links of 1 Gbit/s and of "
        f"{efficiency_text(at_most['50mbit'])} behind 50 Mbit/s. They reach the loss {sooner['1gbit']:.2f} and "
        f"{sooner['50mbit']:.2f} times as soon as one."
    )
    numbers: dict[str, Any] = {}
    for rate in RATES:
        numbers |= numbers_of({key: efficiency for key, efficiency in curve.items() if key[0] == rate}, rate)
        numbers |= numbers_to_loss(trained, rate) | {f"{rate}, {MOST} ranks, times as soon at the loss": sooner[rate]}
    efficient = [at_least(EFFICIENT, efficiency) for efficiency in at_most.values()]
    return by_parts([*efficient, *(times >= SOONER for times in sooner.values())], because, numbers)
