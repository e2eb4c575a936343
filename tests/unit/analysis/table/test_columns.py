"""The columns of summary.csv: each is in the data dictionary, and no two can be taken for each other."""

from __future__ import annotations

import dataclasses
import re
from itertools import combinations
from pathlib import Path

from analysis.table import origin
from analysis.table.frame import COLUMNS, frame
from results.source import Source
from tests.fakes import cell, sweep

DICTIONARY = Path(__file__).resolve().parents[4] / "docs" / "reference" / "summary_csv.md"
UNITS = {"_per_s": ("1/s", "FLOP/s"), "_s": ("s",), "_bytes": ("bytes",), "_mb": ("MiB",)}
"""The unit that the end of a name promises."""


def dictionary() -> dict[str, tuple[str, str]]:
    """Unit and meaning of each column, in the order of the page."""
    rows = re.findall(r"^\| `([a-z_0-9]+)` \| (.*?) \| (.*) \|$", DICTIONARY.read_text(encoding="utf-8"), re.M)
    return {name: (unit, meaning) for name, unit, meaning in rows}


def test_the_data_dictionary_has_each_column_in_order() -> None:
    assert list(dictionary()) == COLUMNS == list(frame(sweep()).columns[: len(COLUMNS)])


def test_each_column_has_a_meaning_of_its_own_and_the_unit_of_its_name() -> None:
    entries = dictionary()
    assert len({meaning for _, meaning in entries.values()}) == len(entries)
    for name, (unit, meaning) in entries.items():
        assert len(meaning) > 8 and meaning.endswith("."), name
        stem = re.sub("_(low|high)$", "", name)
        end = next((end for end in UNITS if stem.endswith(end)), None)
        assert end is None or unit in UNITS[end], name


def test_no_column_is_another_one_in_the_plural_or_shares_its_words() -> None:
    for one, other in combinations(COLUMNS, 2):
        assert one.rstrip("s") != other.rstrip("s")
    training_loss = [name for name in COLUMNS if "loss" in name and not name.startswith("efficiency_loss_")]
    assert training_loss == ["final_loss"]


def test_a_row_names_its_machine_code_and_time() -> None:
    record = cell()
    record.environment |= {"hostname": "node7", "gpus": [{"name": "NVIDIA H200"}] * 8}
    record.source = Source(digest="d", commit="abc123")
    row = frame([record]).iloc[0]
    assert (row["hostname"], row["gpu_models"], row["commit"]) == ("node7", "8 × NVIDIA H200", "abc123")
    assert (row["torch_version"], row["started_at"]) == ("2.15.0", record.launches[0].started_at)


def test_code_that_is_more_than_its_commit_is_marked() -> None:
    record = cell()
    record.source = Source(digest="d", commit="abc123", patch="diff")
    assert origin.columns(record)["commit"] == "abc123+changes"
    bare = dataclasses.replace(record, source=None, environment={}, launches=[])
    assert origin.columns(bare) == dict.fromkeys(origin.COLUMNS)
