"""Verdicts: what a reader has to know before using a cell's numbers. They flag a cell and never drop it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench.measure.time.steadiness import change
from results.conditions import GPU_LIMITS
from results.distorting import distorting
from results.invariants import violations
from results.launches import ENOUGH_LAUNCHES, Launch
from results.record import NO_ENGINE, Record

Conditions = dict[str, float]
"""What ``bench.measure.machine.interference`` counted, by name."""

OTHERS_SHARE = 0.1
"""Of the time of the CPUs that we may use, taken by others."""
TICK_S = 0.01
"""The coarsest tick by which a kernel charges CPU time."""
NAMED_SHARE = 0.1
"""Of what others took, by a process that is worth naming."""
GPU_LIMITED_SHARE = 0.01
"""Of the measured time, with clocks held down."""
FALSE_ALARMS = 0.01
"""Of cells without drift, that are flagged: the probability is divided among their launches."""
LEAST_CHANGE = 0.05
"""Of a step's median time; less is no one's concern, however sure."""
CLOCK_S, CLOCK_SHARE = 1e-3, 1e-3
"""How far clocks may part: for the reading, and for each second between. A time daemon slews by at most 0.0005."""
GPU_CLOCK_SHARE = 0.05
NAMED_OPERATORS = 4
"""How many operators without a formula are named."""


def verdicts(record: Record, oversubscribed: bool) -> list[str]:
    names = []
    if oversubscribed:
        names.append("oversubscribed")
    if record.model and record.model.synthetic_data:
        names.append("synthetic_data")
    if record.resolved.get("simulated"):
        names.append("simulated")
    elif record.resolved.get("outside_parity"):
        names.append("outside_parity")
    elif record.launches and record.parity is None and record.config["engine"]["name"] != NO_ENGINE:
        names.append("parity_unchecked")
    if record.resolved.get("servers"):
        names.append("state_on_servers")
    if record.resolved.get("engine", {}).get("host_is_device"):
        names.append("host_is_device")
    if record.config["straggler"]["rank"] is not None:
        names.append("straggler")
    if record.config["network"]["kind"] != "none":
        names.append("shaped_network")
    if record.config["data_skew"] != "none":
        names.append("skewed_data")
    last = [rank.losses[-1] for launch in record.launches for rank in launch.ranks]
    if "simulated" not in names and not all(map(math.isfinite, last)):
        names.append("loss_not_finite")
    if record.attribution and record.attribution.disagrees(record.launches):
        names.append("instruments_disagree")
    if record.launches and all(map(host_bound, record.launches)):
        names.append("host_bound")
    if record.launches and len(record.launches) < ENOUGH_LAUNCHES:
        names.append("too_few_launches")
    return names + list(disturbances(record))


def disturbances(record: Record) -> dict[str, str]:
    """By verdict, in how many launches the measured steps were disturbed, how badly at worst, and what to do; and which
    operators no count has.

    Judged from what the record holds alone. One launch is enough to flag the cell.
    """
    reasons = {}
    if record.model and record.model.uncounted_operators:
        reasons["flops_incomplete"] = uncounted_operators(record.model.uncounted_operators)
    reasons |= parity_verdicts(record)
    launches = record.launches
    by_verdict = {
        "throttled": [on_worst_host(launch, record, throttled) for launch in launches],
        "background_load": [on_worst_host(launch, record, background_load) for launch in launches],
        "allocator_retries": [allocator_retries(launch.conditions) for launch in launches],
        "drift": [drift(launch, len(launches)) for launch in launches],
        "clock_drift": [on_worst_host(launch, record, clock_drift) for launch in launches],
    }
    for name, seen in by_verdict.items():
        worst = max((cause for cause in seen if cause), default=None, key=lambda cause: cause.size)
        if worst:
            count = sum(cause is not None for cause in seen)
            reasons[name] = f"in {count} of {len(seen)} launches; at worst {worst.words}"
    if changes := record.resolved.get("global_changes"):
        reasons["global_state"] = "; ".join(changes)
    variables = record.environment.get("variables") or {}
    if record.launches and (slowing := distorting(variables)):
        causes = [f"{name}={variables[name]}: {what}" for name, what in slowing.items()]
        reasons["distorting_environment"] = f"{'; '.join(causes)}; unset it to measure"
    if broken := violations(record):
        reasons["implausible"] = "; ".join(f"{name}: {words}" for name, words in broken.items())
    reasons |= updates_missed(record)
    if record.model and record.model.step.eval_mode:
        reasons["eval_mode"] = (
            f"in eval mode: {', '.join(record.model.step.eval_mode[:3])}; call train() on it in the factory, unless "
            "its dropout and batch statistics are meant to be off"
        )
    ceiling = record.ceiling and (background_load(record.ceiling.conditions) or throttled(record.ceiling.conditions))
    if ceiling:
        reasons["ceiling_disturbed"] = ceiling.words
    return reasons


def parity_verdicts(record: Record) -> dict[str, str]:
    """The warnings on parity: not judged, or judged with a wider tolerance; each with its reason."""
    parity = record.parity
    if parity is None or parity.failed:
        return {}
    if parity.unjudged:
        return {"parity_unjudged": parity.unjudged}
    return {"parity_widened": parity.widened} if parity.widened else {}


def uncounted_operators(calls: dict[str, int]) -> str:
    """The operators that ``flops_per_unit`` lacks, the most frequent first."""
    names = sorted(calls, key=lambda name: -calls[name])
    words = ", ".join(f"{name} ({calls[name]} calls)" for name in names[:NAMED_OPERATORS])
    more = f" and {len(names) - NAMED_OPERATORS} more" if len(names) > NAMED_OPERATORS else ""
    return f"no formula for {words}{more}; FLOPs and MFU are lower bounds"


def host_bound(launch: Launch) -> bool:
    """Whether a GPU was done, within half a step, when its host had launched the last step: it had waited for it.

    A host that is ahead leaves at least the last step to do. A wait for data is no part of that.
    """
    left = [rank.backlog_s for rank in launch.ranks if rank.backlog_s is not None]
    return bool(left) and min(left) < statistics.median(launch.training_times_s()) / 2


def updates_missed(record: Record) -> dict[str, str]:
    """``skipped_updates`` and ``no_update`` with their numbers, where measured steps did less than a step does."""
    launches = [[rank.updates for rank in launch.ranks if rank.updates] for launch in record.launches]
    launches = [ranks for ranks in launches if ranks]
    phases = {"timed": launches, "watched (memory, collectives)": [record.updates] if record.updates else []}
    phases["profiled"] = [record.attribution.updates] if record.attribution and record.attribution.updates else []
    skipped, unchanged = [], []
    for phase, groups in phases.items():
        steps = sum(max(rank.steps for rank in ranks) for ranks in groups)
        count = sum(max(rank.skipped for rank in ranks) for ranks in groups)
        if count:
            skipped.append(f"{count} of {steps} {phase} steps")
        idle = sum(not any(rank.weights_changed or not rank.made for rank in ranks) for ranks in groups)
        if idle:
            unchanged.append(f"the {phase} steps of {idle} of {counted(len(groups))}")
    reasons = {}
    if skipped:
        reasons["skipped_updates"] = (
            f"loss scaling skipped the update of {', '.join(skipped)}; raise warmup, scale the loss down, or use "
            "precision=amp_bf16"
        )
    if unchanged:
        reasons["no_update"] = (
            f"no weight changed in {', '.join(unchanged)}; check that the engine calls its optimizer and that the loss "
            "depends on weights"
        )
    return reasons


def counted(launches: int) -> str:
    return "1 launch" if launches == 1 else f"{launches} launches"


@dataclass(frozen=True)
class Cause:
    """Why a launch is flagged."""

    size: float
    """By which launches are compared."""
    words: str
    """What was seen, with its number; then what to do about it."""


def on_worst_host(launch: Launch, record: Record, judge: Callable[..., Cause | None]) -> Cause | None:
    """The verdict of ``judge`` on each host of the launch: the worst one, with the name of its host."""
    causes = [judge(seen, others) for seen, others in launch.of_hosts()]
    if len(causes) == 1:
        return causes[0]
    names = [host["name"] for host in record.resolved["hosts"]]
    named = [Cause(cause.size, f"on {name}: {cause.words}") for cause, name in zip(causes, names, strict=True) if cause]
    return max(named, key=lambda cause: cause.size, default=None)


def throttled(seen: Conditions, _: Conditions | None = None) -> Cause | None:
    """Any stop by the control group's quota, any thermal event of a CPU, or a GPU held back for a share of the time."""
    window_s, stopped_s = seen.get("window_s", math.inf), seen.get("throttled_s", 0.0)
    if seen.get("throttled_periods"):
        words = f"the CPU quota stopped processes for {stopped_s:.2g} s; raise the quota, or use fewer threads or ranks"
        return Cause(stopped_s, words)
    if seen.get("thermal_throttles"):
        words = f"the processor was too hot {seen['thermal_throttles']:.0f} times; cool it, or lower its clock for good"
        return Cause(seen["thermal_throttles"], words)
    limits = {name: value for name, value in seen.items() if name in GPU_LIMITS}
    name = max(limits, default="", key=lambda entry: limits[entry])
    if name and limits[name] > GPU_LIMITED_SHARE * window_s:
        cause = GPU_LIMITS[name]
        words = f"the GPU's {cause} limit held its clocks down for {limits[name]:.2g} s of {window_s:.2g} s; lock them"
        return Cause(limits[name], words)
    return None


def background_load(seen: Conditions, others: Conditions | None = None) -> Cause | None:
    """Other processes, or guests of the same host, took a share of the CPUs that sampling cannot explain."""
    if seen.get("gpu_background_processes"):
        return Cause(math.inf, f"{seen['gpu_background_processes']:.0f} other processes on the GPUs; end them")
    if "background_cpu_s" not in seen:
        return None
    total_s = seen["cpus"] * seen["window_s"]
    # The kernel charges CPU time by ticks: n of them count a process that runs half of the time to sqrt(n)/2.
    sampling_s = math.sqrt(total_s * TICK_S) / 2
    limit_s = max(OTHERS_SHARE * total_s, 3 * sampling_s)
    taken_s = max(seen["background_cpu_s"], seen["stolen_cpu_s"])
    if taken_s <= limit_s:
        return None
    share = f"{taken_s / total_s:.0%} of the CPU time"
    if seen["stolen_cpu_s"] > seen["background_cpu_s"]:
        return Cause(taken_s / total_s, f"the hypervisor gave {share} to other guests; use a dedicated host")
    names = ", ".join(name for name, seconds in (others or {}).items() if seconds >= NAMED_SHARE * taken_s)
    return Cause(taken_s / total_s, f"others took {share}{f' ({names})' if names else ''}; end them, or run again")


def allocator_retries(seen: Conditions) -> Cause | None:
    count = seen.get("alloc_retries", 0.0)
    words = f"{count:.0f} times the GPU was full and cached memory was given back within a step; use a smaller batch"
    return Cause(count, words) if count else None


def drift(launch: Launch, launches: int) -> Cause | None:
    """A change within the launch that chance would show in 1 of 100 cells whose steps are all alike."""
    # Only steps that all ranks have: under data_skew=samples one leaves early, on purpose.
    count = min((len(rank.losses) for rank in launch.ranks), default=0)
    if count < 2:
        return None
    steps = launch.step_times_s()[:count]
    shift = change(steps)
    off = abs(math.log(shift.ratio)) if shift.ratio > 0 else math.inf
    if shift.p > FALSE_ALARMS / launches or off < math.log(1 + LEAST_CHANGE):
        return None
    words = f"steps took {shift.ratio:.2f} times as long from step {shift.step + 1} on; raise warmup, or run again"
    return Cause(off, words)


def clock_drift(seen: Conditions, _: Conditions | None = None) -> Cause | None:
    """The wall clock was set, the monotonic one was slewed beyond what a time daemon may, or a GPU's clock changed."""
    bound_s = CLOCK_S + CLOCK_SHARE * seen.get("window_s", 0.0)
    step_s, slew_s = seen.get("clock_step_s", 0.0), seen.get("clock_slew_s", 0.0)
    if abs(step_s) > bound_s:
        return Cause(abs(step_s), f"the wall clock was set by {step_s:.3g} s; was the machine suspended or migrated?")
    if abs(slew_s) > bound_s:
        return Cause(abs(slew_s), f"the monotonic clock was slewed by {slew_s:.3g} s; stop the time daemon meanwhile")
    change_of_gpu = seen.get("gpu_clock_change", 0.0)
    if abs(change_of_gpu) > GPU_CLOCK_SHARE:
        return Cause(abs(change_of_gpu), f"a GPU's clock changed by {change_of_gpu:+.0%}; lock it (nvidia-smi -lgc)")
    return None
