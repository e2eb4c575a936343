"""The answer in words: the fastest and the leanest setting per world size, what ties, and what scales."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import pandas as pd

from analysis.statistics import medians
from analysis.statistics.medians import Interval
from analysis.table.frame import varying
from analysis.table.panels import describe, panels
from analysis.table.warnings import bearing
from analysis.text.prose import capital, joined
from analysis.text.units import counted, known, ms, number, percent, size
from results.identity import is_task
from results.verdicts import UNRANKED

NUMERALS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
MOST_TIED = 3
"""Tied settings that are named; more are counted."""


@dataclass(frozen=True)
class Answer:
    """One paragraph: what it is about, and what it says."""

    about: str
    text: str


@dataclass(frozen=True)
class Answers:
    """The answers for one task: cells that do the same work."""

    task: str
    """What tells the task from others; empty if there is only one."""
    paragraphs: list[Answer]


def answers(table: pd.DataFrame) -> list[Answers]:
    """For each task, an answer per world size and one on scaling.

    Only cells that ended ok are compared, and none with a verdict for which a cell is never called fastest.
    """
    names = varying(table)
    settings = [name for name in names if not is_task(name) and name != "gpus"]
    tasks = panels(table, [name for name in names if is_task(name)])
    found = [(task.title, task.table, task.table[_ranked(task.table)]) for task in tasks]
    return [
        Answers(title, [*_sizes(ranked, whole, settings), *_scaling(ranked, settings)])
        for title, whole, ranked in found
        if len(ranked)
    ]


def _ranked(table: pd.DataFrame) -> pd.Series:
    return (table["status"] == "ok") & ~bearing(table, UNRANKED) & table["throughput_per_s"].notna()


def _sizes(ranked: pd.DataFrame, table: pd.DataFrame, settings: list[str]) -> list[Answer]:
    return [
        Answer(
            _ranks(int(str(gpus))) + (", oversubscribed" if _crowded(part).all() else ""),
            _best(part, settings, others=int((table["gpus"] == gpus).sum()) - len(part)),
        )
        for gpus, part in ranked.groupby("gpus")
    ]


def _best(part: pd.DataFrame, settings: list[str], others: int) -> str:
    """The fastest setting, what is tied with it, and the leanest and its price; ``others`` ran and are not ranked."""
    fastest = part.iloc[int(part["throughput_per_s"].to_numpy().argmax())]
    speed = f"{ms(fastest['step_time_s'])} ms a step, {number(fastest['throughput_per_s'])} {fastest['unit']}s/s"
    if len(part) == 1 or not settings:
        nothing = f"Of {counted(others, 'other cell')} here none" if others else "Nothing else ran here that"
        return f"{speed}{_held(fastest)}. {nothing} can be compared with it."
    said = _fastest(part, fastest, settings, speed)
    measured = part[part["peak_bytes"].notna() & ~part["verdicts"].str.contains("state_on_servers")]
    if measured.empty or not known(fastest["peak_bytes"]):
        return f"{said} Memory was not measured."
    leanest = measured.sort_values(["peak_bytes", "throughput_per_s"], ascending=[True, False]).iloc[0]
    if leanest["peak_bytes"] > 0.99 * fastest["peak_bytes"]:
        return f"{said} Its peak is {size(fastest['peak_bytes'])} a rank; no setting needs 1 % less."
    ratio = fastest["throughput_per_s"] / leanest["throughput_per_s"]
    price = f"a step takes {ratio:.2f} times as long" if ratio >= 1.005 else "it is as fast"
    than = f"against {size(fastest['peak_bytes'])} for the fastest"
    return f"{said} Leanest is {describe(leanest, settings)}{_held(leanest)}, {than}; {price}."


def _fastest(part: pd.DataFrame, fastest: pd.Series, settings: list[str], speed: str) -> str:
    """The fastest and which settings cannot be told from it: their intervals of throughput overlap its own."""
    name = describe(fastest, settings)
    if not known(fastest["throughput_per_s_low"]):
        return f"Fastest is {name}: {speed}. One launch leaves no interval to say whether others tie."
    tied = part[(part["throughput_per_s_high"] >= fastest["throughput_per_s_low"]) & (part.index != fastest.name)]
    level = _level(part)
    untold = int(part["throughput_per_s_low"].isna().sum())
    if tied.empty:
        others = f"; of one launch, and so without: {counted(untold, 'setting')}" if untold else ""
        return f"Fastest is {name}: {speed}. No other interval overlaps its own, at {level}{others}."
    if len(tied) + 1 == len(part):
        return f"No setting is clearly fastest: all intervals overlap that of {name} ({speed}), at {level}."
    words = [describe(row, settings) for _, row in tied.iterrows()]
    words = words if len(words) <= MOST_TIED else [*words[: MOST_TIED - 1], f"{len(words) - MOST_TIED + 1} others"]
    verb = "is" if len(tied) == 1 else "are"
    return f"Fastest is {name}: {speed}. {capital(joined(words))} {verb} tied with it (intervals at {level} overlap)."


def _level(part: pd.DataFrame) -> str:
    """The level of the intervals that are compared, the lowest where they differ: such as ``75 % (3 launches)``."""
    fewest = int(part.loc[part["launches"] > 1, "launches"].min())
    return Interval(nan, nan, nan, medians.attainable(fewest), fewest).level_text()


def _held(row: pd.Series) -> str:
    if not known(row["peak_bytes"]):
        return ""
    state = f" ({size(row['model_state_bytes'])} of it model state)" if known(row["model_state_bytes"]) else ""
    return f", peak {size(row['peak_bytes'])} a rank{state}"


def _scaling(table: pd.DataFrame, settings: list[str]) -> list[Answer]:
    """What the largest world that shares no core keeps of its per-rank throughput, and what the others cannot say."""
    grown = table[table["gpus"] > table["scaling_baseline_gpus"]]
    if grown.empty:
        return []
    said = []
    fair = grown[~_crowded(grown)]
    for _, alike in fair[fair["gpus"] == fair["gpus"].max()].groupby("scaling_baseline_gpus"):
        said += _kept(alike, settings)
    crowded = sorted(grown.loc[_crowded(grown), "gpus"].unique())
    if crowded:
        worlds = joined([NUMERALS[world] if world < len(NUMERALS) else str(world) for world in crowded])
        cap = grown.loc[_crowded(grown), "scaling_cap"].min()
        room = f": at {crowded[-1]} ranks sharing alone caps efficiency at {percent(cap)}" if known(cap) else ""
        partly = " with settings that share cores" if set(crowded) & set(fair["gpus"]) else ""
        said.append(f"{capital(worlds)} ranks on {_place(grown)}{partly} say nothing about scaling{room}.")
    return [Answer("Scaling", " ".join(said))]


def _kept(part: pd.DataFrame, settings: list[str]) -> list[str]:
    """How much of the baseline's per-rank throughput the best and the worst setting keep."""
    ordered = part.sort_values("scaling_efficiency", ascending=False)
    best, worst = ordered.iloc[0], ordered.iloc[-1]
    low, high = best["scaling_efficiency_low"], best["scaling_efficiency_high"]
    interval = f" ({100 * low:.0f} to {100 * high:.0f})" if known(low) else ""
    name = describe(best, settings) or "the setting"
    start = f"From {_ranks(int(best['scaling_baseline_gpus']))} to {best['gpus']}"
    first = f"{start}, {name} keeps {percent(best['scaling_efficiency'])}{interval} of its throughput per rank"
    if len(part) == 1:
        return [first + "."]
    return [f"{first}, the most; {describe(worst, settings)} keeps {percent(worst['scaling_efficiency'])}, the least."]


def _place(table: pd.DataFrame) -> str:
    """What the ranks ran on, such as ``two cores``."""
    counts = sorted({int(count) for count in table["devices"].dropna()})
    if len(counts) != 1:
        return "fewer devices"
    noun = "GPU" if (table["device"] == "cuda").all() else "core"
    word = NUMERALS[counts[0]] if counts[0] < len(NUMERALS) else str(counts[0])
    return f"{word} {noun}{'' if counts[0] == 1 else 's'}"


def _crowded(table: pd.DataFrame) -> pd.Series:
    return table["verdicts"].str.contains("oversubscribed")


def _ranks(count: int) -> str:
    return f"{count} rank{'' if count == 1 else 's'}"
