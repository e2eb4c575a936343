"""Verdicts on cells and statuses: what each means, its letter, and which exclude from ranking."""

from __future__ import annotations

from results.identity import UNTRAINED

UNRANKED = ("outside_parity", "parity_unjudged", "simulated", *UNTRAINED)
"""Verdicts on cells that are listed and never called fastest: they do not compute what one process does, or not all."""

MEANINGS = {
    "oversubscribed": "more ranks than cores or GPUs. Stages can be compared with each other at one world size; "
    "nothing here tells how they scale.",
    "synthetic_data": "the data are made up. Time and memory are real; loss and accuracy mean nothing.",
    "outside_parity": "does not compute what one process does, by design: listed, never called fastest.",
    "simulated": "rank 0 ran alone (backend=fake). Its memory and what it calls are real, its time is compute only, "
    "and nothing was trained together: no throughput, no efficiency, never compared.",
    "state_on_servers": "servers beside the ranks hold part of the model state, outside state and peak: never called "
    "leanest.",
    "straggler": "one rank was slowed on purpose.",
    "skewed_data": "ranks were dealt unequal samples on purpose.",
    "shaped_network": "ranks met over links of a set rate and delay: times are that network's, not this machine's.",
    "parity_unchecked": "timed without comparing them with a single process.",
    "parity_unjudged": "cannot be judged: whether this equals a single process is not known. Listed, never ranked.",
    "parity_widened": "equal to a single process only within a tolerance that the model's own rounding widened.",
    "loss_not_finite": "training diverged: listed, never ranked.",
    "skipped_updates": "loss scaling skipped the update of measured steps, which then did less than a step does: "
    "listed, never ranked.",
    "no_update": "measured steps changed no weight, so they trained nothing: listed, never ranked.",
    "distorting_environment": "an environment variable for debugging made steps slower, or changed what they do.",
    "eval_mode": "a part of the model that is trained was built in eval mode: dropout and batch statistics are off.",
    "throttled": "a quota, heat or a power limit held the machine back during measured steps.",
    "foreign_process": "others used these CPUs or GPUs during measured steps.",
    "allocator_retries": "GPU memory ran out within measured steps, which then waited for it to be freed.",
    "not_steady": "steps became slower or faster within a launch, beyond chance (1 cell in 100).",
    "clock_drift": "clocks did not agree on how long the measured steps took.",
    "ceiling_disturbed": "others used these CPUs or GPUs while the ceiling was measured: MFU may be too high.",
    "instruments_disagree": "the profiler and the launches without communication differ on what communication costs, "
    "or the parts of a step do not add up to it: neither is to be relied on.",
    "implausible": "numbers contradict each other, or are beyond what is possible: at least one is wrong.",
    "flops_incomplete": "the model calls operators that multiply and whose FLOPs nothing counts: FLOPs and MFU are too "
    "low.",
    "global_state": "the workload's factory changed global state of torch or of its process. What the suite sets was "
    "put back; other cells are not affected.",
    "host_bound": "a GPU waited for its host to launch kernels: times are the host's as much as the GPU's.",
    "too_few_launches": "intervals do not reach 95 %; each number's level says what they attain. More: "
    "repeats=6 or above.",
}

LETTERS = {
    "oversubscribed": "o",
    "synthetic_data": "s",
    "too_few_launches": "f",
    "parity_unchecked": "u",
    "parity_unjudged": "j",
    "parity_widened": "d",
    "loss_not_finite": "n",
    "outside_parity": "p",
    "skipped_updates": "d",
    "no_update": "e",
    "eval_mode": "z",
    "distorting_environment": "r",
    "implausible": "j",
    "state_on_servers": "v",
    "straggler": "l",
    "skewed_data": "k",
    "shaped_network": "w",
    "throttled": "t",
    "foreign_process": "x",
    "allocator_retries": "a",
    "not_steady": "y",
    "clock_drift": "c",
    "ceiling_disturbed": "g",
    "simulated": "m",
    "instruments_disagree": "i",
    "host_bound": "h",
    "flops_incomplete": "q",
    "global_state": "b",
}
"""For tables without room for words."""

DISTURBANCES = ("throttled", "foreign_process", "allocator_retries", "not_steady", "clock_drift")
"""Verdicts on what happened while a cell was timed; another run may be without them."""

STATUS_MEANINGS = {
    "failed": "a rank raised or died",
    "timeout": "a rank did not answer in time",
    "oom": "out of memory",
    "unsupported": "refused by the engine before it started",
    "unavailable": "a library is missing",
    "parity_failed": "computes something else than one process does: never ranked or drawn",
    "interrupted": "stopped before its first launch ended",
}


def letters(verdict_names: str) -> str:
    """The verdicts of a cell, joined by semicolons, as letters."""
    return "".join(LETTERS.get(name, "?") for name in verdict_names.split(";") if name)
