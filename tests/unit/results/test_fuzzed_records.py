"""Records from anywhere: any file is read or rejected in a line, and no report breaks on what was read."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from analysis.advice.recommend import AdviceLimits, advise, lines
from analysis.comparison import compare
from analysis.comparison.verdict import NothingToCompare
from analysis.report.document import document
from analysis.report.model.content import Content
from analysis.report.terminal import print_summary
from analysis.report.write import write_report
from results.attribution import Attribution, StepParts
from results.launches import Ceiling, Collective
from results.memory import Search, Trial
from results.read import NoRecords, load
from results.record import Record, RecordError
from tests.fakes import launch, sweep

FEW = settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=80)

ODD: list[Any] = [None, True, False, 0, 1, -1, 3, 2**31, 2**63, 10**30, 10**400, 0.0, -0.0, 0.5, -1e-300, 1e-320, 1e308]
ODD += [
    -1e308,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "0",
    "nan",
    "ok",
    "../../../etc/passwd",
    "\x1b[2J",
    "\ud800",
    "é\n|<b>",
]
ODD += ["9" * 5000, [], [[]], {}, [None], {"": {}}, [0] * 3, [1e308] * 5, [math.nan, 1.0], {"name": 1}, {"a": [{}]}]


def whole_record() -> dict[str, Any]:
    """A record in which every field holds something, as JSON."""
    made = sweep(stages=(1,), worlds=(2,), repeats=2, steps=3)[0]
    made.ceiling = Ceiling(1e9, "float32", 512, {"window_s": 1.0})
    made.collectives = [Collective("all_reduce", "float32", 100, 2, 1), Collective("barrier", "", 0, 2, 1)]
    part = StepParts(0.01, 0.006, 0.001, 0.001, 0.001, 0.0005, 0.0005, 0.003, 0.001)
    silent = [launch(0, [[0.008] * 3] * 2), launch(1, [[0.008] * 3] * 2)]
    made.attribution = Attribution([[part] * 3] * 2, silent=silent)
    made.search = Search(None, 1, 64, [Trial(8, 100, True), Trial(16, None, False)])
    made.verdict_reasons = {"drift": "it drifted"}
    document: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(made)))
    return document


WHOLE = whole_record()


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every entry of a JSON document, by the keys that lead to it."""
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, entry in entries:
        yield (*path, key)
        yield from places(entry, (*path, key))


PLACES = list(places(WHOLE))


def changed(document: dict[str, Any], place: tuple[Any, ...], how: str, value: Any) -> None:
    """Drops, replaces, doubles or adds an entry; a place that an earlier change removed is passed over."""
    holder: Any = document
    try:
        for key in place[:-1]:
            holder = holder[key]
        entry = holder[place[-1]]
    except (LookupError, TypeError):
        return
    if how == "drop":
        del holder[place[-1]]
    elif how == "replace":
        holder[place[-1]] = value
    elif how == "add" and isinstance(entry, dict):
        entry[str(value)[:40]] = value
    elif how == "add" and isinstance(entry, list):
        entry.append(copy.deepcopy(entry[0]) if entry and value is None else value)
    elif how == "scale" and isinstance(entry, int | float) and not isinstance(entry, bool):
        holder[place[-1]] = -entry if value is None else entry * 10**9 if isinstance(entry, int) else entry * 1e200


CHANGES = st.tuples(
    st.sampled_from(PLACES), st.sampled_from(["drop", "replace", "replace", "add", "scale"]), st.sampled_from(ODD)
)


def mutated(changes: list[tuple[tuple[Any, ...], str, Any]]) -> dict[str, Any]:
    document = copy.deepcopy(WHOLE)
    for place, how, value in changes:
        changed(document, place, how, copy.deepcopy(value))
    return document


def read(data: bytes) -> Record | None:
    """The record in a file of these bytes, or None where it is rejected in one line that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.json"
        path.write_bytes(data)
        try:
            return Record.read(path)
        except RecordError as error:
            assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1, str(error)
            return None


@MANY
@given(st.lists(CHANGES, min_size=1, max_size=3))
def test_a_changed_record_is_read_or_rejected_with_its_field(changes: list[tuple[tuple[Any, ...], str, Any]]) -> None:
    document = mutated(changes)
    record = read(json.dumps(document).encode())
    if record:
        assert dataclasses.asdict(record).keys() == WHOLE.keys()


@MANY
@given(st.data())
def test_damaged_bytes_are_read_or_rejected(data: st.DataObject) -> None:
    raw = bytearray(json.dumps(WHOLE).encode())
    how = data.draw(st.sampled_from(["cut", "flip", "insert", "repeat"]))
    at = data.draw(st.integers(0, len(raw) - 1))
    if how == "cut":
        del raw[at:]
    elif how == "flip":
        raw[at] ^= data.draw(st.integers(1, 255))
    elif how == "insert":
        raw[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    else:
        raw[at:at] = raw[at : at + 200]
    read(bytes(raw))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" * 200_000, "nested too deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep"),
        (
            json.dumps(WHOLE | {"config": json.loads('{"a":' * 30 + "1" + "}" * 30)}).encode(),
            "nested more than 20 deep",
        ),
        (json.dumps(WHOLE).encode("utf-16"), "not a readable record"),
        (json.dumps(WHOLE).encode("utf-8-sig"), "not a readable record"),
        (json.dumps(WHOLE)[:-1].encode() + b', "cell_id": "twice"}', "field 'cell_id' occurs twice"),
        (b'{"schema_version": ' + b"9" * 10_000 + b"}", "not a readable record"),
        (json.dumps(WHOLE | {"config": {"gpus": 10**40}}).encode(), "record.config.gpus: 1000"),
        (json.dumps(WHOLE | {"cell_id": "../../escaped"}).encode(), "record.cell_id: '../../escaped' is not the name"),
        (json.dumps(WHOLE | {"status": "x" * 10**6}).encode(), "record.status: 'xxx"),
        (json.dumps(WHOLE | {"verdicts": [0] * 10**6}).encode(), "record.verdicts[0]: expected str, found int"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",  # an id of megabytes goes to every worker
)
def test_an_attack_on_the_reader_is_rejected(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(RecordError) as rejection:
        Record.read(path)
    assert why in str(rejection.value) and len(str(rejection.value)) < 500


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.json")
    with pytest.raises(RecordError, match="it is not a file"):
        Record.read(tmp_path / "r.json")


def test_what_a_terminal_would_obey_is_not_kept() -> None:
    record = read(json.dumps(WHOLE | {"reason": "a\x1b[2Jb\r\x07c\nd", "verdicts": ["\x9b"]}).encode())
    assert record and record.reason == "a\ufffd[2Jb\ufffd\ufffdc\nd" and record.verdicts == ["\ufffd"]


def test_a_record_that_is_read_imports_nothing() -> None:
    before = set(sys.modules)
    raw = copy.deepcopy(WHOLE)
    raw["config"]["engine"] = {"name": "torch", "package": "antigravity"}
    raw["config"]["workload"] = {"name": "digits", "factory": "this:that", "path": "antigravity:fly"}
    record = read(json.dumps(raw).encode())
    assert record
    document(Content([record]))
    assert not {"antigravity", "this"} & (set(sys.modules) - before)


def analyse(folder: Path, *, drawn: bool) -> None:
    """All that analysis does with records, apart from drawing where not ``drawn``."""
    try:
        contents = load([folder])
    except NoRecords:
        return
    assert all(len(line.splitlines()) == 1 for line in contents.warnings)
    content = Content(contents.records, contents.warnings)
    table = content.table
    if drawn:
        paths = write_report(content, folder / "report")
        assert paths.html.read_text().rstrip().endswith("</html>")
    else:
        document(content)
    print_summary(content, None, console=Console(file=io.StringIO(), width=100))
    for limits in (AdviceLimits(), AdviceLimits(memory_bytes=1e6, efficiency=0.5, gpus=2)):
        for advice in advise(contents.records, table, limits):
            lines(advice)
    try:
        pairs, alone = compare.pair_sets(contents.records, contents.records)
        outcomes = [compare.compare(pair, 0.02) for pair in pairs]
    except NothingToCompare:
        return
    compare.show(outcomes, alone, ("a", "b"), setting=None, margin=0.02, out=Console(file=io.StringIO(), width=100))


def folder_of(changes: list[tuple[tuple[Any, ...], str, Any]], folder: Path) -> None:
    """A sound sweep, and one record that is not."""
    (folder / "records").mkdir(parents=True)
    for at, record in enumerate(sweep(stages=(1,), worlds=(1, 4), repeats=2, steps=3)):
        record.write(folder / "records" / f"{at}.json")
    (folder / "records" / "changed.json").write_text(json.dumps(mutated(changes)))


def no_record_breaks_a_report(examples: int, *, drawn: bool) -> None:
    @settings(FEW, max_examples=examples)
    @given(st.lists(CHANGES, min_size=1, max_size=3))
    def holds(changes: list[tuple[tuple[Any, ...], str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            folder_of(changes, Path(folder))
            analyse(Path(folder), drawn=drawn)

    holds()


@pytest.mark.parametrize("examples", [15, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_no_record_breaks_the_words_of_a_report(examples: int) -> None:
    no_record_breaks_a_report(examples, drawn=False)


@pytest.mark.parametrize("examples", [2, pytest.param(10, marks=pytest.mark.exhaustive)])
def test_no_record_breaks_a_whole_report(examples: int) -> None:
    no_record_breaks_a_report(examples, drawn=True)
