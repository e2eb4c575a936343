"""Every verdict and status, declared once: its meaning, its letter, and what analysis does about it.

A verdict is a warning on a configuration: something to know before using its numbers. It drops nothing. The rules that
decide them are in ``bench.measure.verdicts`` and ``results.invariants``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Note = Literal["advice", "comparison"]


@dataclass(frozen=True)
class Verdict:
    """One warning."""

    id: str
    letter: str
    """For tables without room for words."""
    meaning: str
    ranked: bool = True
    """Whether a configuration with this verdict can be called fastest."""
    untrained: str = ""
    """Why measured steps did not train, in words; neither their time nor, with ``idle``, their memory is a step's."""
    idle: bool = False
    """Whether measured steps did not update the weights, so that their memory is not a step's either."""
    momentary: bool = False
    """Whether it happened to the machine meanwhile: another run may be without it."""
    notes: tuple[Note, ...] = ()
    """Where it is named next to a configuration's numbers."""


ALL = (
    Verdict(
        "oversubscribed",
        "o",
        "more ranks than cores or GPUs. Stages can be compared at one world size; scaling cannot be measured.",
    ),
    Verdict("synthetic_data", "s", "synthetic data: time and memory are real, loss and accuracy mean nothing."),
    Verdict(
        "outside_parity",
        "p",
        "not numerically equivalent to a single process, by design: listed, never ranked.",
        ranked=False,
        notes=("comparison",),
    ),
    Verdict(
        "simulated",
        "m",
        "rank 0 ran alone (backend=fake). Its memory and its collective calls are real, its time is computation only; "
        "no throughput, no efficiency, never compared.",
        ranked=False,
    ),
    Verdict(
        "state_on_servers",
        "v",
        "parameter servers hold part of the model state, which state and peak leave out: never called lowest.",
    ),
    Verdict(
        "host_is_device",
        "H",
        "offload on a CPU: host and device are the same memory, so it saves none, and its copies count in the peak.",
        notes=("advice",),
    ),
    Verdict("straggler", "l", "one rank was slowed on purpose.", notes=("advice",)),
    Verdict("skewed_data", "k", "ranks got unequal samples on purpose.", notes=("advice",)),
    Verdict(
        "shaped_network",
        "w",
        "emulated network: bandwidth and latency were set, so times are not this machine's.",
        notes=("advice",),
    ),
    Verdict("parity_unchecked", "u", "not compared with a single process.", notes=("advice",)),
    Verdict(
        "parity_unjudged",
        "q",
        "parity cannot be judged: unknown whether this equals a single process. Listed, never ranked.",
        ranked=False,
        notes=("comparison",),
    ),
    Verdict(
        "parity_widened",
        "d",
        "equal to a single process only within a tolerance that the model's own rounding widened.",
        notes=("comparison",),
    ),
    Verdict(
        "loss_not_finite",
        "n",
        "training diverged: listed, never ranked.",
        ranked=False,
        untrained="training diverged",
    ),
    Verdict(
        "skipped_updates",
        "S",
        "loss scaling skipped the update of measured steps, which then did less work: listed, never ranked.",
        ranked=False,
        untrained="steps without an update",
        idle=True,
    ),
    Verdict(
        "no_update",
        "e",
        "measured steps changed no weight, so they trained nothing: listed, never ranked.",
        ranked=False,
        untrained="no weight changed",
        idle=True,
    ),
    Verdict(
        "eval_mode",
        "z",
        "a trained part of the model was built in eval mode: dropout and batch statistics are off.",
    ),
    Verdict(
        "distorting_environment",
        "r",
        "an environment variable for debugging slowed steps down or changed what they do.",
    ),
    Verdict(
        "throttled",
        "t",
        "a quota, heat or a power limit slowed the machine during measured steps.",
        momentary=True,
        notes=("advice", "comparison"),
    ),
    Verdict(
        "background_load",
        "x",
        "other processes used these CPUs or GPUs during measured steps.",
        momentary=True,
        notes=("advice", "comparison"),
    ),
    Verdict(
        "allocator_retries",
        "a",
        "GPU memory ran out within measured steps, which waited until some was freed.",
        momentary=True,
        notes=("advice", "comparison"),
    ),
    Verdict(
        "drift",
        "y",
        "steps became slower or faster within a launch, beyond chance (1 configuration in 100).",
        momentary=True,
        notes=("advice", "comparison"),
    ),
    Verdict(
        "clock_drift",
        "c",
        "clocks disagreed on how long the measured steps took.",
        momentary=True,
        notes=("advice", "comparison"),
    ),
    Verdict(
        "ceiling_disturbed",
        "g",
        "background load while peak FLOP/s was measured: MFU may be too high.",
    ),
    Verdict(
        "instruments_disagree",
        "i",
        "the profiler and the launches without communication differ on what communication costs, or the parts of a "
        "step do not add up to it: do not rely on either.",
    ),
    Verdict("implausible", "j", "numbers contradict each other or are impossible: at least one is wrong."),
    Verdict(
        "flops_incomplete",
        "F",
        "the model calls operators that multiply and have no FLOP formula: FLOPs and MFU are too low.",
    ),
    Verdict(
        "global_state",
        "b",
        "the workload's factory changed global state of torch or of its process. It was restored; other "
        "configurations are not affected.",
    ),
    Verdict(
        "host_bound",
        "h",
        "a GPU waited for its host to launch kernels: times are the host's as much as the GPU's.",
        notes=("advice",),
    ),
    Verdict(
        "too_few_launches",
        "f",
        "confidence intervals do not reach 95 %; each is printed with its level. Use repeats=6 or more.",
    ),
)
VERDICTS = {verdict.id: verdict for verdict in ALL}

UNRANKED = tuple(verdict.id for verdict in ALL if not verdict.ranked)
UNTRAINED = {verdict.id: verdict.untrained for verdict in ALL if verdict.untrained}
IDLE = tuple(verdict.id for verdict in ALL if verdict.idle)
MOMENTARY = tuple(verdict.id for verdict in ALL if verdict.momentary)

STATUS_MEANINGS = {
    "failed": "a rank raised an exception or died",
    "timeout": "a rank did not finish in time",
    "oom": "out of memory",
    "unsupported": "not supported by the engine; not started",
    "unavailable": "a library is missing",
    "parity_failed": "does not match the single-process reference: never ranked or drawn",
    "interrupted": "stopped before its first launch ended",
}


def noted(where: Note) -> tuple[str, ...]:
    """The verdicts that are named next to numbers in advice, or in a comparison."""
    return tuple(verdict.id for verdict in ALL if where in verdict.notes)


def meaning(verdict: str) -> str:
    """The meaning of a verdict; empty for one of another version."""
    return VERDICTS[verdict].meaning if verdict in VERDICTS else ""


def letters(verdicts: str) -> str:
    """The verdicts of a configuration, joined by semicolons, as letters."""
    return "".join(VERDICTS[name].letter if name in VERDICTS else "?" for name in verdicts.split(";") if name)
