"""The answer in words: one or two sentences, then per world size the fastest, what is tied, and the lowest memory.

Rank, sentence and table use one measure: throughput over all ranks. Ties follow ``analysis.advice.ranking``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.advice.ranking import Ranking, rank
from analysis.metrics.interference import load_text
from analysis.table.frame import varying
from analysis.table.panels import describe, panels
from analysis.table.warnings import bearing
from analysis.text.prose import capital, joined, tied
from analysis.text.units import counted, interval, is_finite, number, percent, size
from results.identity import is_task
from results.record import Record
from results.verdicts import UNRANKED

NUMERALS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
MOST_TIED = 3
"""Tied settings that are named; more are counted."""


@dataclass(frozen=True)
class Answer:
    """One paragraph: its topic and its text."""

    about: str
    text: str


@dataclass(frozen=True)
class Answers:
    """The answers for one task: configurations that do the same work."""

    task: str
    """What distinguishes the task from others; empty if there is only one."""
    headline: str
    """The answer at the largest world size that is not oversubscribed, or else the largest one."""
    paragraphs: list[Answer]


@dataclass(frozen=True)
class World:
    """The ranked configurations of one task at one world size."""

    gpus: int
    part: pd.DataFrame
    records: list[Record]
    settings: list[str]
    unranked: int
    """Configurations of the same world size that are not ranked."""

    @property
    def is_crowded(self) -> bool:
        return bool(_crowded(self.part).all())

    def name(self, at: int) -> str:
        return describe(self.part.iloc[at], self.settings)


def answers(records: Sequence[Record], table: pd.DataFrame) -> list[Answers]:
    """For each task an answer per world size and one on scaling; ``table`` is the frame of ``records``, or a part.

    Only configurations that ended ok are compared, and none with a warning that excludes it from ranking.
    """
    names = varying(table)
    settings = [name for name in names if not is_task(name) and name != "gpus"]
    task_answers = []
    for task in panels(table, [name for name in names if is_task(name)]):
        ranked = task.table[_ranked(task.table)]
        if ranked.empty:
            continue
        worlds = [
            World(
                gpus=int(str(gpus)),
                part=part,
                records=[records[int(str(index))] for index in part.index],
                settings=settings,
                unranked=int((task.table["gpus"] == gpus).sum()) - len(part),
            )
            for gpus, part in ranked.groupby("gpus")
        ]
        fair = [world for world in worlds if not world.is_crowded]
        headline = _headline((fair or worlds)[-1])
        task_answers.append(Answers(task.title, headline, [*map(_paragraph, worlds), *_scaling(ranked, settings)]))
    return task_answers


def _ranked(table: pd.DataFrame) -> pd.Series:
    return (table["status"] == "ok") & ~bearing(table, UNRANKED) & table["throughput_per_s"].notna()


def _paragraph(world: World) -> Answer:
    about = _ranks(world.gpus) + (", oversubscribed" if world.is_crowded else "")
    if len(world.part) == 1 or not world.settings:
        row = world.part.iloc[0]
        others = f"Of {counted(world.unranked, 'other configuration')} none" if world.unranked else "Nothing else"
        return Answer(about, f"{capital(_speed(row))}{_peak_text(row)}. {others} can be compared with it.")
    ranking = _rank(world)
    ties = "" if load_text(world.records[ranking.fastest]) else _ties(world, ranking)
    lines = [_fastest(world, ranking), ties, _memory(world, ranking), _loaded(world, ranking)]
    return Answer(about, " ".join(filter(None, lines)))


def _headline(world: World) -> str:
    """One or two sentences: the fastest with its ties, and the lowest peak memory with its price."""
    where = f"at {_ranks(world.gpus)}{' (oversubscribed)' if world.is_crowded else ''}"
    if len(world.part) == 1 or not world.settings:
        row = world.part.iloc[0]
        return f"{capital(_speed(row))} {where}{_peak_text(row)}."
    ranking = _rank(world)
    first = _fastest(world, ranking, where)
    if not load_text(world.records[ranking.fastest]) and len(ranking.tied) + 1 < len(world.part):
        first = f"{first.removesuffix('.')}; {_short_ties(world, ranking)}."
    return f"{first} {_memory(world, ranking)}"


def _short_ties(world: World, ranking: Ranking) -> str:
    if not ranking.level_text():
        return "one launch each is too few to assess ties"
    if not ranking.tied:
        return "all others are slower"
    return tied(_names(world, ranking))


def _names(world: World, ranking: Ranking) -> list[str]:
    """The tied ones, the first few by name."""
    names = [world.name(at) for at in ranking.tied]
    if len(names) > MOST_TIED:
        names = [*names[: MOST_TIED - 1], f"{len(names) - MOST_TIED + 1} others"]
    return names


def _rank(world: World) -> Ranking:
    return rank(world.records, world.part["throughput_per_s"].tolist())


def _fastest(world: World, ranking: Ranking, where: str = "") -> str:
    """The fastest by name; not where its own numbers, or all others', are in doubt."""
    row = world.part.iloc[ranking.fastest]
    place = f" {where}" if where else ""
    if load := load_text(world.records[ranking.fastest]):
        return (
            f"No fastest configuration is named{place}: {world.name(ranking.fastest)} had the highest throughput, "
            f"{_speed(row)}, under heavy background load ({load}); run again on an idle machine."
        )
    if len(ranking.tied) + 1 == len(world.part):
        return (
            f"No configuration is measurably faster than all others{place}; the highest throughput is "
            f"{world.name(ranking.fastest)}'s, {_speed(row)}."
        )
    return f"Fastest{place} is {world.name(ranking.fastest)}: {_speed(row)}."


def _ties(world: World, ranking: Ranking) -> str:
    """The configurations that are not measurably slower, by the paired ratio over rounds."""
    level = ranking.level_text()
    if not level:
        return "One launch each is too few to assess ties."
    few = f"; {counted(len(ranking.undecided), 'configuration')} with one launch not assessed" * bool(ranking.undecided)
    if not ranking.tied:
        return f"All others are slower (paired ratio over rounds, {level}{few})."
    if len(ranking.tied) + 1 == len(world.part):
        return f"All are tied with it: each paired ratio's interval includes 1 ({level})."
    return f"{capital(tied(_names(world, ranking)))} (paired ratio over rounds includes 1; {level}{few})."


def _memory(world: World, ranking: Ranking) -> str:
    """The lowest peak memory, and its price in throughput: the fastest of those within 1 % of the lowest."""
    part, fastest = world.part, world.part.iloc[ranking.fastest]
    measured = part[part["peak_bytes"].notna() & ~part["verdicts"].str.contains("state_on_servers")]
    if measured.empty or not is_finite(fastest["peak_bytes"]):
        return "Memory was not measured."
    alike = measured[0.99 * measured["peak_bytes"] <= measured["peak_bytes"].min()]
    lowest = alike.loc[alike["throughput_per_s"].idxmax()]
    if lowest["peak_bytes"] > 0.99 * fastest["peak_bytes"]:
        return f"Its peak is {size(fastest['peak_bytes'])} per rank; no configuration uses less (1 % tolerance)."
    ratio = lowest["throughput_per_s"] / fastest["throughput_per_s"]
    price = f"at {ratio:.2f} times the throughput" if ratio < 0.995 else "at the same throughput"
    name = describe(lowest, world.settings)
    saved = f"{size(lowest['peak_bytes'])} per rank instead of {size(fastest['peak_bytes'])}"
    return f"Lowest peak memory: {name}, {saved}, {price}."


def _loaded(world: World, ranking: Ranking) -> str:
    """The other configurations that were measured under heavy background load."""
    loaded = [at for at, record in enumerate(world.records) if at != ranking.fastest and load_text(record)]
    if not loaded:
        return ""
    names = [world.name(at) for at in loaded[:MOST_TIED]] + (["others"] if len(loaded) > MOST_TIED else [])
    return f"Also under heavy background load: {joined(names)}."


def _speed(row: pd.Series) -> str:
    """Throughput with its interval, and the step time."""
    speed = f"{number(row['throughput_per_s'], 4)} {row['unit']}s/s"
    ends = interval(row["throughput_per_s_low"], row["throughput_per_s_high"])
    return f"{speed} ({percent(row['interval_level'])} CI {ends})" if ends else speed


def _peak_text(row: pd.Series) -> str:
    if not is_finite(row["peak_bytes"]):
        return ""
    state = f" ({size(row['model_state_bytes'])} of it model state)" if is_finite(row["model_state_bytes"]) else ""
    return f", peak {size(row['peak_bytes'])} per rank{state}"


def _scaling(table: pd.DataFrame, settings: list[str]) -> list[Answer]:
    """Per-rank throughput kept by the largest world that shares no core, and the worlds that share cores."""
    grown = table[table["gpus"] > table["scaling_baseline_gpus"]]
    if grown.empty:
        return []
    lines = []
    fair = grown[~_crowded(grown)]
    for _, alike in fair[fair["gpus"] == fair["gpus"].max()].groupby("scaling_baseline_gpus"):
        lines += _kept(alike, settings)
    crowded = sorted(grown.loc[_crowded(grown), "gpus"].unique())
    if crowded:
        worlds = joined([NUMERALS[world] if world < len(NUMERALS) else str(world) for world in crowded])
        cap = grown.loc[_crowded(grown), "scaling_cap"].min()
        room = f": core sharing limits efficiency to {percent(cap)} at {crowded[-1]} ranks" if is_finite(cap) else ""
        partly = " with settings that share cores" if set(crowded) & set(fair["gpus"]) else ""
        lines.append(f"{capital(worlds)} ranks on {_place(grown)}{partly} say nothing about scaling{room}.")
    return [Answer("Scaling", " ".join(lines))]


def _kept(part: pd.DataFrame, settings: list[str]) -> list[str]:
    """Scaling efficiency of the best and the worst setting."""
    ordered = part.sort_values("scaling_efficiency", ascending=False)
    best, worst = ordered.iloc[0], ordered.iloc[-1]
    ends = interval(best["scaling_efficiency_low"], best["scaling_efficiency_high"], 100)
    level = f" ({percent(best['interval_level'])} CI {ends})" if ends else ""
    name = describe(best, settings) or "the setting"
    start = f"From {_ranks(int(best['scaling_baseline_gpus']))} to {best['gpus']}"
    first = f"{start}, {name} keeps {percent(best['scaling_efficiency'])}{level} of its throughput per rank"
    if len(part) == 1:
        return [first + "."]
    return [f"{first}, the most; {describe(worst, settings)} keeps {percent(worst['scaling_efficiency'])}, the least."]


def _place(table: pd.DataFrame) -> str:
    """The cores or GPUs of the ranks, such as ``two cores``."""
    counts = sorted({int(count) for count in table["machine_devices"].dropna()})
    if len(counts) != 1:
        return "fewer devices"
    noun = "GPU" if (table["device"] == "cuda").all() else "core"
    word = NUMERALS[counts[0]] if counts[0] < len(NUMERALS) else str(counts[0])
    return f"{word} {noun}{'' if counts[0] == 1 else 's'}"


def _crowded(table: pd.DataFrame) -> pd.Series:
    return table["verdicts"].str.contains("oversubscribed")


def _ranks(count: int) -> str:
    return f"{count} rank{'' if count == 1 else 's'}"
