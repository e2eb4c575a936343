"""What a reader must know before using the numbers: cells that did not end ok, and verdicts on those that did."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.cells import frozen, label
from analysis.layout import describe
from analysis.load import each_cell, varying
from analysis.units import counted
from bench.record import NO_ENGINE

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


@dataclass(frozen=True)
class Flag:
    """One thing that is wrong with, or to know of, some cells."""

    name: str
    """The status or verdict."""
    meaning: str
    cells: str
    """Which cells, in words."""
    reason: str = ""


def bearing(table: pd.DataFrame, verdicts: Collection[str]) -> pd.Series:
    """By row whether it has any of these verdicts."""
    return table["verdicts"].str.split(";").map(lambda held: not set(verdicts).isdisjoint(held)).astype(bool)


def failures(table: pd.DataFrame) -> list[Flag]:
    """One entry per status and reason among the cells that did not end ok."""
    bad = table[table["status"] != "ok"]
    return [
        Flag(str(status), STATUS_MEANINGS.get(str(status), ""), which(part, table), str(reason))
        for (status, reason), part in bad.groupby(["status", "reason"], sort=False)
    ]


def verdicts(table: pd.DataFrame) -> list[Flag]:
    """One entry per verdict on cells that were timed, or searched for their largest batch."""
    timed = table[(table["launches"] > 0) | (table["search_tried"] > 0)]
    held = timed["verdicts"].str.split(";").explode()
    names = [name for name in dict.fromkeys(held) if name]
    noun = "cell" if len(timed) == len(table) else "timed cell"
    found = []
    for name in names:
        part = timed.loc[held.index[held == name]]
        found.append(Flag(name, MEANINGS.get(name, ""), which(part, timed, noun), example(name, part)))
    return found


def example(name: str, part: pd.DataFrame) -> str:
    """What was seen in one of the cells that bear a verdict; empty where the verdict says it all."""
    said = (entry.partition(": ") for reasons in part["verdict_reasons"] for entry in reasons.split(" | "))
    first = next((reason for verdict, _, reason in said if verdict == name), "")
    return f"One of them: {first}" if first and len(part) > 1 else capital(first)


def which(part: pd.DataFrame, table: pd.DataFrame, noun: str = "cell") -> str:
    """Some of the table's cells in words: all of them, all with certain values of a knob, or one by one."""
    if len(part) == len(table) > 1:
        return f"all {counted(len(table), noun)}"
    names = varying(table) or (["gpus"] if (table["engine"] == NO_ENGINE).all() else ["stage", "gpus"])
    if len(part) > 1 and (shared := shared_values(part, table, names)):
        return f"all {counted(len(part), noun)} with {shared}"
    shown = part if len(part) <= 4 else part[:3]
    words = [describe(row, names) for _, row in each_cell(shown)]
    if len(shown) < len(part):
        words.append(f"{len(part) - len(shown)} more")
    return ", ".join(words)


def shared_values(part: pd.DataFrame, table: pd.DataFrame, names: list[str]) -> str:
    """Such as ``4 and 8 ranks``: the values of a knob that these cells have and no others; empty if there is none.

    Of several such knobs the one with the fewest values.
    """
    telling: dict[str, list[Any]] = {}
    for name in names:
        values = part[name].map(frozen)
        first = values.drop_duplicates().index
        if len(first) < len(part) == table[name].map(frozen).isin(values).sum():
            telling[name] = part.loc[first, name].tolist()
    if not telling:
        return ""
    name = min(telling, key=lambda name: len(telling[name]))
    if name == "gpus" and len(telling[name]) > 1:
        return f"{joined([str(value) for value in sorted(telling[name])])} ranks"
    return joined([label(name, value) for value in telling[name]])


def letters(verdict_names: str) -> str:
    """The verdicts of a cell, joined by semicolons, as letters."""
    return "".join(LETTERS.get(name, "?") for name in verdict_names.split(";") if name)


def joined(words: list[str]) -> str:
    """Such as ``4 and 8``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]
