"""Whether training waits."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from analysis.metrics import time
from analysis.statistics.medians import ratio_interval
from analysis.theory.calibrated import CalibratedStep
from claims import to_target
from claims.claim import Finding, Register, by_parts, claim, decided
from claims.suite import ExperimentError, Suite, sound
from results.record import Record, world_size

CLAIMS: Register = []
FOLLOWS = 0.85
"""The least share of the slow rank's step that a step of a rank takes which waits for it."""
SLOW = 4
RANKS = 4
EXPECTED = (RANKS - 1 + 1 / SLOW) * SLOW / RANKS
"""Times the throughput that ranks have which do not wait for one that is SLOW times slower."""
ENGINES = ("torch", "native")
MODES = ("sync", "async")
LRS = (0.005, 0.01, 0.03, 0.1, 0.2)
"""Below and above what is fastest for either mode, by trials (0.01 and 0.1)."""
FASTER = 1.1
DELAYS = range(9)
QUADRATIC_LRS = [0.01, 0.1, 0.3, 1.0, 3.0]


def follow(record: Record) -> float:
    """The shortest step of the other ranks over the slow one's; each rank's is the median over its steps."""
    ranks = sound(record).launches[0].ranks
    steps = [median(rank.step_times_s()) for rank in ranks]
    slow: int = record.config["straggler"]["rank"]
    bare_s = CalibratedStep.of(record.config).compute_s(SLOW)
    if steps[slow] < 0.9 * bare_s:
        raise ExperimentError(
            f"{record.cell_id}: the slow rank's step took {steps[slow]:.3f} s, its layers {bare_s:.3f}"
        )
    return min(step for rank, step in enumerate(steps) if rank != slow) / steps[slow]


def followed(suite: Suite) -> dict[tuple[str, int], float]:
    """By engine and stage, how closely the others' steps follow that of a rank that is SLOW times slower."""
    records = suite.sweep(
        f"engine={','.join(ENGINES)}",
        "stage=0,1,2,3",
        f"gpus={RANKS}",
        "workload=calibrated",
        f"straggler.rank={RANKS - 1}",
        f"straggler.factor={SLOW}",
        "measure=time",
        "measure.ceiling=false",
        "steps=7",
        "repeats=1",
    )
    return {(record.config["engine"]["name"], record.config["stage"]): follow(record) for record in records}


def with_a_server(suite: Suite) -> dict[tuple[str, bool], Record]:
    """A parameter server's records by mode, and by whether a rank is SLOW times slower."""
    records = suite.sweep(
        "engine=parameter_server",
        "engine.mode=sync,async",
        f"gpus={RANKS}",
        "workload=calibrated",
        "workload.forward_s=0.01",
        "workload.backward_s=0.02",
        f"straggler.rank=null,{RANKS - 1}",
        f"straggler.factor={SLOW}",
        "measure=time",
        "measure.ceiling=false",
        "steps=8",
        "repeats=3",
    )
    return {
        (record.config["engine"]["mode"], record.config["straggler"]["rank"] is not None): sound(record)
        for record in records
    }


def asynchronous(suite: Suite) -> float:
    """How closely workers that do not wait follow the slow one; they must not, or the instrument is blind."""
    ratio = follow(with_a_server(suite)["async", True])
    if ratio >= FOLLOWS:
        raise ExperimentError(f"control: steps of an asynchronous server's workers take {ratio:.2f} of the slow one's")
    return ratio


@claim(
    CLAIMS,
    "A11",
    "ZeRO trains asynchronously: its ranks do not wait for each other.",
    "Stages 1 to 3 on four ranks, one of them 4 times slower: steps of another rank that take less than 0.85 of the "
    "slow one's would support it. Control: they do with an asynchronous parameter server.",
    timed=True,
)
def zero_is_asynchronous(suite: Suite) -> Finding:
    shares = {key: share for key, share in followed(suite).items() if key[1] > 0}
    control = asynchronous(suite)
    free = [share < FOLLOWS for share in shares.values()]
    because = (
        f"The other ranks' steps take at least {min(shares.values()):.2f} of the slow one's at every stage; with an "
        f"asynchronous server {control:.2f}."
    )
    return by_parts(free, because, in_words(shares) | {"asynchronous server, step over the slow rank's": control})


@claim(
    CLAIMS,
    "A12",
    "DDP trains synchronously: in each step its ranks wait for the slowest.",
    "Stage 0 on four ranks, one of them 4 times slower: supported if the steps of every other rank take at least 0.85 "
    "of the slow one's. Control: they do not with an asynchronous parameter server.",
    timed=True,
)
def ddp_is_synchronous(suite: Suite) -> Finding:
    shares = {key: share for key, share in followed(suite).items() if key[1] == 0}
    control = asynchronous(suite)
    because = (
        f"The other ranks' steps take at least {min(shares.values()):.2f} of the slow one's; with an asynchronous "
        f"server {control:.2f}."
    )
    numbers = in_words(shares) | {"asynchronous server, step over the slow rank's": control}
    return decided(min(shares.values()) >= FOLLOWS, because, numbers)


def in_words(shares: dict[tuple[str, int], float]) -> dict[str, float]:
    return {f"{engine}, stage {stage}, step over the slow rank's": share for (engine, stage), share in shares.items()}


@claim(
    CLAIMS,
    "A13",
    "Asynchronous training is faster than synchronous training.",
    "A parameter server of four workers, in both modes. Supported if all of these hold, partly if some do. With a "
    "worker 4 times slower, throughput is at least 80 % of 3.25 times as high. A loss of 0.3 on digits is reached at "
    "least 1.1 times as soon, with that worker and without. Each mode has the best of five learning rates; three "
    "launches, each from its own seed.",
    timed=True,
)
def asynchronous_is_faster(suite: Suite) -> Finding:
    records = with_a_server(suite)
    samples = {
        slowed: ratio_interval(*[throughputs(records[mode, slowed]) for mode in ("async", "sync")]).value
        for slowed in (True, False)
    }
    best = best_to_loss(suite)
    sooner = {slowed: to_target.times_as_soon(best["async", slowed], best["sync", slowed]) for slowed in (True, False)}
    steps = {mode: to_target.outcome(best[mode, True]).steps.value for mode in MODES}
    holds = [samples[True] >= 0.8 * EXPECTED, sooner[True].value >= FASTER, sooner[False].value >= FASTER]
    because = (
        f"With a slow worker it takes {samples[True]:.2f} times the samples per second ({EXPECTED:.2f} expected), but "
        f"needs {steps['async'] / steps['sync']:.1f} times as many for the same loss and reaches it "
        f"{sooner[True].value:.2f} times as fast; without a slow worker {samples[False]:.2f} times the samples per "
        f"second, {sooner[False].value:.2f} times as fast to it."
    )
    numbers: dict[str, Any] = {}
    for slowed, where in ((True, "with a slow worker"), (False, "without")):
        numbers |= {
            f"throughput, async over sync, {where}": samples[slowed],
            f"time to the loss, sync over async, {where}": sooner[slowed].value,
        }
        for mode in MODES:
            numbers |= to_target.in_numbers(best[mode, slowed], f"{mode}, {where}")
    return by_parts(holds, because, numbers)


def throughputs(record: Record) -> list[float]:
    if world_size(record) != RANKS or record.model is None:
        raise ExperimentError(f"{record.cell_id}: not of {RANKS} ranks that trained")
    return [time.throughput_per_s(record, launch) for launch in record.launches]


def best_to_loss(suite: Suite) -> dict[tuple[str, bool], Record]:
    """At the learning rate that reaches the loss soonest, by mode, and by whether a rank is SLOW times slower."""
    records = suite.sweep(
        "engine=parameter_server",
        f"engine.mode={','.join(MODES)}",
        f"gpus={RANKS}",
        "workload=module:claims.programs.asleep:AsleepDigits",
        "workload.kwargs={forward_s: 0.01, backward_s: 0.02}",
        "batch_size=16",
        f"lr={','.join(map(str, LRS))}",
        f"straggler.rank=null,{RANKS - 1}",
        f"straggler.factor={SLOW}",
        *to_target.SGD,
        to_target.every_image(16 * RANKS),
        "measure=time",
        "measure.ceiling=false",
        "steps=120",
        "repeats=3",
    )
    by_setting: dict[tuple[str, bool], list[Record]] = {}
    for record in records:
        key = (record.config["engine"]["mode"], record.config["straggler"]["rank"] is not None)
        by_setting.setdefault(key, []).append(record)
    return {key: to_target.soonest(group) for key, group in by_setting.items()}


@claim(
    CLAIMS,
    "A14",
    "Asynchrony makes parameters inconsistent and training unstable.",
    "Descent on a quadratic by gradients that are τ updates old, simulated for τ = 0 to 8: the learning rate at which "
    "it begins to diverge is within 1 % of 2·sin(π/(4τ+2)) over the curvature. A parameter server, momentum 0.9: four "
    "workers' weights after the same step differ in async mode, not in sync mode, and a learning rate diverges only in "
    "the former.",
)
def asynchrony_is_unstable(suite: Suite) -> Finding:
    edges = {delay: edge(delay) for delay in DELAYS}
    off = max(abs(rate / (2 * math.sin(math.pi / (4 * delay + 2))) - 1) for delay, rate in edges.items())
    runs = {mode: quadratics(suite, mode) for mode in MODES}
    spreads = {mode: spread(runs[mode][QUADRATIC_LRS[0]]) for mode in runs}
    diverged = {mode: [lr for lr in QUADRATIC_LRS if diverges(runs[mode][lr])] for mode in runs}
    only_async = [lr for lr in diverged["async"] if lr not in diverged["sync"]]
    inconsistent = spreads["async"] > 0 == spreads["sync"]
    unstable = off <= 0.01 and bool(only_async)
    delay = usual_delay(runs["async"][QUADRATIC_LRS[0]])
    because = (
        f"The largest stable learning rate falls from {edges[0]:.2f} to {edges[8]:.2f} at τ = 8, within "
        f"{100 * off:.1g} % of the formula. On ranks (mostly τ = {delay}) weights are up to {spreads['async']:.2g} of "
        f"their start apart in async, {spreads['sync']:.2g} in sync mode; {len(only_async)} of "
        f"{len(QUADRATIC_LRS)} learning rates from {QUADRATIC_LRS[0]:g} to {QUADRATIC_LRS[-1]:g} diverge in async only."
    )
    numbers: dict[str, Any] = {f"largest stable learning rate, delay {key}": rate for key, rate in edges.items()}
    numbers |= {"largest deviation from the formula": off, "async, usual delay in updates": delay}
    numbers |= {f"{mode}, largest spread of weights over their start": largest for mode, largest in spreads.items()}
    numbers |= {f"{mode}, learning rates that diverged": rates for mode, rates in diverged.items()}
    return by_parts([inconsistent, unstable], because, numbers)


def edge(delay: int) -> float:
    """The learning rate above which descent on the quadratic of curvature 1 diverges, by bisection."""
    low, high = 0.0, 2.5
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle, delay) else (middle, high)
    return (low + high) / 2


def grows(lr: float, delay: int, steps: int = 4000) -> bool:
    """Whether x ← x - lr·(x of ``delay`` updates ago) is larger in the last quarter of its steps than before."""
    past = [1.0] * (delay + 1)
    largest = [0.0, 0.0, 0.0, 0.0]
    for step in range(steps):
        latest = past[-1] - lr * past[0]
        past = [*past[1:], latest]
        quarter = 4 * step // steps
        largest[quarter] = max(largest[quarter], abs(latest))
        if abs(latest) > 1e100:
            return True
    return largest[3] > largest[2]


def quadratics(suite: Suite, mode: str) -> dict[float, list[dict[str, Any]]]:
    """By learning rate, the reports of each worker and the server on the quadratic."""
    reports = suite.program(
        "claims.programs.stale:quadratics", RANKS + 1, mode=mode, lrs=QUADRATIC_LRS, steps=100, step_s=0.004
    )
    return {runs[0]["lr"]: list(runs) for runs in zip(*reports, strict=True)}


def spread(runs: list[dict[str, Any]]) -> float:
    """The largest difference of workers' weights after the same number of their steps, over the weight at the start."""
    weights: list[list[float]] = [run["weights"] for run in runs[:-1]]
    spreads: list[float] = [max(after) - min(after) for after in zip(*weights, strict=False)]
    return max(spreads)


def diverges(runs: list[dict[str, Any]]) -> bool:
    """Whether a worker ended with a larger weight than it began with."""
    *workers, _ = runs
    return any(abs(run["weights"][-1]) > 1 for run in workers)


def usual_delay(runs: list[dict[str, Any]]) -> int:
    delays: dict[str, int] = runs[-1]["delays"]
    return int(max(delays, key=lambda delay: delays[delay]))
