"""A record's words are text in every file of the report, whatever they are: never markup, never a broken table."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from analysis.report.write import ReportPaths
from results.read import load
from results.record import Record
from tests.fakes import bare, sweep, write_report

HOSTILE = [
    "<script>alert(1)</script>",
    "</style></svg></td></table><img src=x onerror=alert(1)>",
    "`rm -rf` | a | b \\| **bold** ![](http://x) [y](http://x)",
    '" onload="alert(1)" x=\'',
    "]]> --> {{ 7 * 7 }} {% raw %} &amp; $\\alpha$",
    "line one\nline two\r\n\n# heading\n| --- |",
    "\x00\x07\x1b[31m\x7f\ufffe control",
    "Ünïcödé ✓ 日本語 \u202egnp.exe\u202c",
    "long " + "x" * 3000,
    "\n",
]
JOINED = [" ".join(HOSTILE[:5]), HOSTILE[2], "".join(HOSTILE[5:-1]), HOSTILE[-1]]
"""The same with fewer figures to draw."""
HALF = "a file name that is not UTF-8: \udcff"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Holds the elements against each other: all that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def hostile(texts: list[str]) -> list[Record]:
    """A sweep per text, whose settings, workload, reasons, environment and engine's notes are hostile."""
    records = []
    for at, text in enumerate(texts):
        part = sweep((0, 3), (1, 2), repeats=2, steps=4, workload={"name": text, text: text, "factory": text})
        for record in part:
            record.config["data_dir"] = text
            around: Any = {text: text, "cpu_model": text, "gpus": [{"name": text}], "git": {"commit": text}}
            description: Any = {"library": text, "described": [text]}
            record.environment, record.resolved["engine"] = around, description
            record.resolved["uncounted"] = text
            record.verdicts = ["background_load", text]
            record.verdict_reasons = {"background_load": text, text: text}
            record.sweep_id, record.cell_id = text, text.replace("/", "")  # a file is named after the cell
            assert record.model is not None
        records += part
        failed = bare("failed", text, at % 4, 4, workload={"name": text})
        failed.cell_id = failed.cell_id.replace("/", "")
        records.append(failed)
    return records


@pytest.fixture(scope="module", params=[JOINED, pytest.param(HOSTILE, marks=pytest.mark.exhaustive)], ids=len)
def texts(request: pytest.FixtureRequest) -> list[str]:
    texts: list[str] = request.param
    return texts


@pytest.fixture(scope="module")
def report(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    home = tmp_path_factory.mktemp("hostile")
    (home / "records").mkdir()
    for at, record in enumerate(hostile(texts)):
        record.write(home / "records" / f"{at:03}.json")
    return write_report(load([home]).records, home, [*HOSTILE, HALF], gpu_memory_bytes=2**30)


def test_half_a_character_is_replaced_and_a_whole_one_kept(tmp_path: Path) -> None:
    record = bare("failed", "half \ud83d of it")
    record.write(tmp_path / "half.json")
    assert Record.read(tmp_path / "half.json").reason == "half \ufffd of it"
    record.reason = "whole \U0001f600"
    record.write(tmp_path / "whole.json")
    assert Record.read(tmp_path / "whole.json").reason == record.reason


@pytest.mark.parametrize("written", ["\x7f", "\x9b", "\\u007F", "\\u001b", "\\b"])
def test_what_moves_a_cursor_is_replaced_however_a_file_writes_it(tmp_path: Path, written: str) -> None:
    file = tmp_path / "record.json"
    bare("failed", "MARK").write(file)
    file.write_text(file.read_text("utf-8").replace("MARK", f"up{written}1A"), "utf-8")
    assert Record.read(file).reason == "up\ufffd1A"


def test_the_page_is_well_formed_and_holds_no_element_of_theirs(report: ReportPaths) -> None:
    page = Page()
    text = report.html.read_text(encoding="utf-8")
    page.feed(text)
    page.close()
    assert page.faults == [] and page.open == []
    assert not {"script", "img", "iframe", "object", "link"} & page.seen
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', text))
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text.replace("&#39;", "'"), "what a template is written in is text too"


def test_every_svg_is_xml_of_drawing_elements_only(report: ReportPaths) -> None:
    files = sorted(report.html.parent.glob("figures/*.svg"))
    assert len(files) == len(report.figures) > 0
    for file in files:
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(file).iter()}
        assert not tags & {"script", "image", "foreignObject", "a", "img"}, file
        assert file.with_suffix(".png").is_file()


def test_tables_of_the_markdown_keep_their_columns(report: ReportPaths, texts: list[str]) -> None:
    lines = report.markdown.read_text(encoding="utf-8").splitlines()
    counted = 0
    width = None
    for line in lines:
        bars = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))
        if not line.startswith("|"):
            assert bars == 0 or line.startswith("    "), line  # a command is indented: shown as it is
            width = None
            continue
        width = width or bars
        assert bars == width, line
        counted += 1
    assert counted > 10 * len(texts)


def test_no_line_of_the_markdown_is_markup_of_theirs(report: ReportPaths) -> None:
    text = report.markdown.read_text(encoding="utf-8")
    shown = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert not re.search(r"<(?!!--|a id=\"[a-z-]+\"></a>$)[a-z/](?!a>$)", shown, re.MULTILINE)
    assert not re.search(r"(?<!\\)\]\(http", shown), "their brackets are escaped"
    assert not re.search(r"^#+ heading", shown, re.MULTILINE)
    headings = [line for line in shown.splitlines() if line.startswith("## ")]
    assert headings[0] == "## Answer" and {"## Failed configurations", "## Warnings"} <= set(headings)


def test_control_characters_are_left_out(report: ReportPaths) -> None:
    for path in (report.html, report.markdown):
        controls = set(
            re.findall(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\u202e]", path.read_text("utf-8"))
        )
        assert controls == set(), path


def test_the_table_is_read_back_with_every_row(report: ReportPaths, texts: list[str]) -> None:
    rows = len(texts) * 5
    assert len(pd.read_csv(report.csv, dtype=str)) == rows
    assert len(pd.read_parquet(report.parquet)) == rows
