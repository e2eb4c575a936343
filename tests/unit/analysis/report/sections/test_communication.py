"""The ledger of collectives in analysis: what calls send, and how the report says it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from analysis.metrics.traffic import sent_bytes
from analysis.report.sections.communication import summary
from results.launches import Collective
from results.record import Record
from tests.fakes import cell, write_report

MIB = 1 << 20
GRADIENTS = Collective("all_reduce", "float32", MIB, 4, 2)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all_reduce", 12),
        ("reduce_scatter", 6),
        ("all_gather", 6),
        ("all_to_all", 6),
        ("broadcast", 6),
        ("reduce", 6),
        ("gather", 1.5),
        ("scatter", 1.5),
        ("send", 8),
        ("recv", 0),
        ("barrier", 0),
        ("gossip", None),
    ],
)
def test_a_call_sends_what_is_best_possible(kind: str, sent: float | None) -> None:
    """Two of 4 MiB among 4 ranks."""
    call_bytes = Collective(kind, "float32", MIB, 4, 2).sent_bytes
    assert (call_bytes if call_bytes is None else call_bytes / MIB) == sent


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float32", 4), ("bfloat16", 2), ("int64", 8), ("uint8", 1), ("bool", 1), ("float8_e4m3fn", 1), ("complex64", 8)],
)
def test_an_element_has_the_bytes_that_its_dtype_names(dtype: str, size: int) -> None:
    assert Collective("send", dtype, 3, 2, 5).size_bytes == 3 * size
    assert Collective("send", dtype, 3, 2, 5).total_bytes == 15 * size


def test_ranks_that_send_unequally_are_averaged() -> None:
    sends = [[Collective("send", "float32", size, 2, 1)] for size in (30, 10)]
    assert sent_bytes(cell(gpus=2, collectives=sends[0])) == 120
    assert sent_bytes(cell(gpus=2, collectives=sends[0], collectives_by_rank=sends)) == 80


def test_bytes_that_were_not_all_counted_are_not_reported() -> None:
    assert sent_bytes(cell(gpus=4)) is None
    assert sent_bytes(cell(gpus=4, collectives=[GRADIENTS, Collective("gossip", "float32", 1, 4, 1)])) is None
    past_torch = cell(gpus=4, collectives=[GRADIENTS])
    past_torch.resolved["uncounted"] = "a library of its own"
    assert sent_bytes(past_torch) is None


def test_like_lines_are_shown_together() -> None:
    lines = [
        GRADIENTS,
        Collective("send", "bfloat16", 512, 4, 3),
        Collective("recv", "bfloat16", 512, 4, 3),
        Collective("send", "bfloat16", 1024, 4, 1),
        Collective("barrier", "", 0, 4, 1),
    ]
    assert summary(lines) == ["2 all-reduces, 8.00 MiB fp32", "4 sends, 5.00 KiB bf16", "1 barrier"]
    assert summary([GRADIENTS, Collective("broadcast", "float32", 256, 2, 1)]) == [
        "2 all-reduces, 8.00 MiB fp32, 4 ranks",
        "1 broadcast, 1.00 KiB fp32, 2 ranks",
    ]


def test_a_ledger_survives_being_written_and_read(tmp_path: Path) -> None:
    record = cell(gpus=4, collectives=[GRADIENTS], collectives_by_rank=[[GRADIENTS], []])
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record


def test_the_report_sets_what_was_counted_next_to_the_prediction(tmp_path: Path) -> None:
    parameters = 101_242
    counted = cell(gpus=2, collectives=[Collective("all_reduce", "float32", parameters, 2, 1)])
    hidden = cell(1, 2, collectives=[])
    hidden.resolved["uncounted"] = "<b>a library</b> of its own"
    paths = write_report([counted, cell(2, 2), hidden], tmp_path)
    text = paths.markdown.read_text(encoding="utf-8")
    section = text.partition("## Communication per step")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert [line.removesuffix(" |").split(" | ")[-1] for line in lines] == [
        "1 all-reduce, 395 KiB fp32",
        "not counted: &lt;b&gt;a library&lt;/b&gt; of its own",
    ]
    assert "Communication per step" in paths.html.read_text(encoding="utf-8")
    with open(paths.csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["sent_bytes"] for row in rows] == [f"{4.0 * parameters}", "", ""]
    assert (
        write_report([cell(2, 2)], tmp_path, drawn=False).markdown.read_text(encoding="utf-8").count("Communication")
        == 0
    )
