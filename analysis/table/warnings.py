"""Failed cells, and warnings on those that were ok."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.table.frame import each_cell, varying
from analysis.table.panels import describe
from analysis.text.labels import label
from analysis.text.prose import capital, joined
from analysis.text.units import counted
from results.identity import frozen
from results.record import NO_ENGINE
from results.verdicts import STATUS_MEANINGS, meaning


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
    return table["verdicts"].str.split(";").map(lambda names: not set(verdicts).isdisjoint(names)).astype(bool)


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
    entries = timed["verdicts"].str.split(";").explode()
    names = [name for name in dict.fromkeys(entries) if name]
    noun = "configuration" if len(timed) == len(table) else "timed configuration"
    flags = []
    for name in names:
        part = timed.loc[entries.index[entries == name]]
        flags.append(Flag(name, meaning(name), which(part, timed, noun), example(name, part)))
    return flags


def example(name: str, part: pd.DataFrame) -> str:
    """The measured reason of a verdict, from one of its cells; empty where there is none."""
    entries = (entry.partition(": ") for reasons in part["verdict_reasons"] for entry in reasons.split(" | "))
    first = next((reason for verdict, _, reason in entries if verdict == name), "")
    return f"One of them: {first}" if first and len(part) > 1 else capital(first)


def which(part: pd.DataFrame, table: pd.DataFrame, noun: str = "configuration") -> str:
    """Some of the table's cells in words: all of them, all with certain values of a setting, or one by one."""
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
    """Such as ``4 and 8 ranks``: the values of a setting that these cells have and no others; empty if there is none.

    Of several such settings the one with the fewest values.
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
