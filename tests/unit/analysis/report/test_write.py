"""The report as written: numbers, words, figures, and nothing that a record could smuggle in."""

from __future__ import annotations

import csv
import html
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from analysis.__main__ import main
from analysis.figures.canvas import style
from analysis.figures.curves import THROUGHPUT, curve
from analysis.report.markdown import escaped
from analysis.report.model.content import Content
from analysis.report.terminal import print_summary
from analysis.report.write import ReportPaths, write_csv
from analysis.table import provenance
from analysis.table.frame import frame
from analysis.table.panels import layout, panels
from analysis.table.warnings import failures, verdicts, which
from tests.fakes import bare, cell, measured, sweep, troubled_sweep, write_all, write_report

HOSTILE = "<script>alert('x')</script> | `rm -rf` & **bold** $\\alpha$ ![](http://x)"
REQUIRED = [
    *["engine", "stage", "gpus", "workload", "precision", "bucket_mb", "overlap", "scaling", "device", "backend"],
    *["status", "reason", "verdicts", "parity_error", "step_time_s", "step_time_s_low", "step_time_s_high"],
    *["throughput_per_s", "scaling_efficiency", "model_state_bytes", "model_state_predicted_bytes", "peak_bytes"],
    "final_loss",
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    return write_report(sweep(), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    records = troubled_sweep()
    next(record for record in records if record.status == "failed").reason = HOSTILE
    return write_report(records, tmp_path_factory.mktemp("troubled"), [f"bad.json: {HOSTILE}"])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_summary_csv_has_its_columns_in_order_and_a_row_a_cell(plain: ReportPaths) -> None:
    table_rows = rows(plain.csv)
    assert len(table_rows) == 16
    assert list(table_rows[0])[: len(REQUIRED)] == REQUIRED


def test_summary_csv_agrees_with_the_records_by_a_calculator(plain: ReportPaths) -> None:
    per_rank = {
        (str(record.config["stage"]), str(record.config["gpus"])): [
            64 * len(one.ranks[0].losses) / max(rank.wall_s for rank in one.ranks) for one in record.launches
        ]
        for record in sweep()
    }
    row_of_cell = {(row["stage"], row["gpus"]): row for row in rows(plain.csv)}
    for (stage, gpus), row in row_of_cell.items():
        base = per_rank[stage, row["scaling_baseline_gpus"]]
        ratios = [above / below for above, below in zip(per_rank[stage, gpus], base, strict=True)]
        assert float(row["scaling_efficiency"]) == pytest.approx(sorted(ratios)[2], rel=1e-9), "of five rounds"
        throughput = sorted(per_rank[stage, gpus])[2] * int(gpus)
        assert float(row["throughput_per_s"]) == pytest.approx(throughput, rel=1e-9)
        assert int(row["model_state_bytes"]) == sum(
            int(row[f"{kind}_bytes"]) for kind in ("params", "master", "grads", "optimizer", "buffers")
        )
        assert float(row["step_time_s_low"]) <= float(row["step_time_s"]) <= float(row["step_time_s_high"])


def test_summary_csv_leaves_empty_what_was_not_measured(tmp_path: Path) -> None:
    records = [cell(), bare("failed", "broke, badly", 1), measured(cell(2, 1)), cell(2, 2, engine={"name": "other"})]
    write_csv(frame(records), tmp_path / "summary.csv")
    table_rows = rows(tmp_path / "summary.csv")
    failed = next(row for row in table_rows if row["status"] == "failed")
    assert failed["reason"] == "broke, badly"
    assert failed["step_time_s"] == failed["model_state_bytes"] == failed["scaling_efficiency"] == ""
    one_launch = next(row for row in table_rows if row["status"] == "ok")
    assert float(one_launch["step_time_s"]) == pytest.approx(0.01)
    assert one_launch["step_time_s_low"] == one_launch["interval_level"] == ""
    other = next(row for row in table_rows if row["engine"] == "other")
    assert other["model_state_predicted_bytes"] == ""


class Tags(HTMLParser):
    """Collects what a page would load or run, and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]


def test_the_page_needs_no_network_and_runs_nothing(troubled: ReportPaths) -> None:
    page = Tags()
    page.feed(troubled.html.read_text(encoding="utf-8"))
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert page.tags.count("svg") == len(troubled.figures) > 6
    assert "@import" not in troubled.html.read_text() and "url(http" not in troubled.html.read_text()


def test_a_hostile_reason_is_text_and_nothing_else(troubled: ReportPaths) -> None:
    page = troubled.html.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    text = troubled.markdown.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "![](http" not in text
    assert r"\`rm -rf\`" in text


def test_a_hostile_setting_does_not_break_figures(tmp_path: Path) -> None:
    records = [cell(0, gpus, workload={"name": name}) for gpus in (1, 2) for name in (HOSTILE, "b")]
    paths = write_report(records, tmp_path)
    assert "<script" not in paths.html.read_text(encoding="utf-8")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths.figures)


def test_markdown_tables_keep_their_shape(troubled: ReportPaths) -> None:
    lines = troubled.markdown.read_text(encoding="utf-8").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("| stage"))
    table = lines[start : start + 18]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {13}
    assert escaped("a|b\n<c>") == r"a\|b &lt;c&gt;"


def test_figures_of_the_markdown_exist(plain: ReportPaths) -> None:
    linked = re.findall(r"\]\((figures/[^)]+)\)", plain.markdown.read_text(encoding="utf-8"))
    assert sorted(linked) == sorted(f"figures/{path.name}" for path in plain.figures)
    assert len(linked) > 6
    assert all((plain.markdown.parent / link).is_file() for link in linked)


def test_the_same_records_give_the_same_report(plain: ReportPaths, tmp_path: Path) -> None:
    again = write_report(sweep(), tmp_path)
    for ours, theirs in ((plain.html, again.html), (plain.markdown, again.markdown), (plain.csv, again.csv)):
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_first_screen_is_the_answer_with_links_to_failures_and_warnings(troubled: ReportPaths) -> None:
    for path, marks in (
        (troubled.html, [">Answer<", 'href="#failures"', 'href="#warnings"', "<svg", "<nav", ">Configurations</h2>"]),
        (troubled.markdown, ["## Answer", "](#failures)", "](#warnings)", "Contents: ", "## Configurations"]),
    ):
        text = path.read_text(encoding="utf-8")
        places = [text.index(mark) for mark in marks]
        assert places == sorted(places)
        assert text.index("Failed configurations") < text.rindex("Warnings")


def test_every_link_of_a_report_leads_to_a_part_of_it(troubled: ReportPaths) -> None:
    for path, link, anchor in (
        (troubled.html, r'<a [^>]*href="#([^"]+)"', ' id="{}"'),
        (troubled.markdown, r"\]\(#([^)]+)\)", '<a id="{}">'),
    ):
        text = path.read_text(encoding="utf-8")
        linked = re.findall(link, text)
        assert {"answer", "configurations", "failures", "warnings", "environment"} <= set(linked)
        assert [name for name in linked if text.count(anchor.format(name)) != 1] == []


def test_failures_and_verdicts_name_their_cells() -> None:
    table = frame(troubled_sweep())
    assert {flag.name: flag.cells for flag in failures(table)}["oom"] == "stage 3 · 8 ranks"
    cells_of = {flag.name: flag.cells for flag in verdicts(frame(sweep()))}
    assert cells_of == {
        "too_few_launches": "all 16 configurations",
        "oversubscribed": "all 8 configurations with 4 and 8 ranks",
    }


def test_cells_that_differ_in_one_setting_are_named_by_its_values() -> None:
    table = frame(sweep((0, 1, 2, 3), (1, 2, 4)))
    sharded, top, alone = table["stage"] > 1, table["stage"] == 3, table["gpus"] == 1
    assert which(table[sharded], table) == "all 6 configurations with stage 2 and stage 3"
    assert which(table[alone], table) == "all 4 configurations with 1 rank"
    assert which(table[top & ~alone], table) == "stage 3 · 2 ranks, stage 3 · 4 ranks"
    of_two = table[table["gpus"] == 4]
    assert which(of_two[of_two["stage"] < 2], of_two) == "stage 0, stage 1"


def test_a_disturbed_cell_says_by_what_in_the_report_and_bears_a_cross(tmp_path: Path) -> None:
    reason = "in 2 of 5 launches; at worst others took 40% of the CPU time (make); end them, or run again"
    records = sweep((0,), (1, 2))
    records[1].verdicts = [*records[1].verdicts, "background_load"]
    records[1].verdict_reasons = {"background_load": reason}
    paths = write_report(records, tmp_path, drawn=False)
    meaning = "other processes used these CPUs or GPUs during measured steps."
    sentence = f"{meaning} {reason.replace('in', 'In', 1)}."
    assert sentence in html.unescape(paths.html.read_text(encoding="utf-8"))
    assert sentence in paths.markdown.read_text(encoding="utf-8").replace("\\_", "_")
    assert f"background_load: {reason}" in paths.csv.read_text(encoding="utf-8")
    with style():
        drawn = frame(records)
        place = layout(drawn)
        figure = curve(panels(drawn, place.panels)[0], place, THROUGHPUT)
        assert figure
        crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
        assert [len(line.get_xdata()) for line in crosses] == [1]


def test_a_sweep_with_nothing_ok_still_has_a_report(tmp_path: Path) -> None:
    paths = write_report([bare("failed", "broke", stage) for stage in (0, 1)], tmp_path)
    assert paths.figures == []
    assert "nothing to compare" in paths.html.read_text(encoding="utf-8")


def test_a_record_with_an_empty_environment_still_has_a_report(tmp_path: Path) -> None:
    record = cell()
    record.environment = {}
    assert "an unrecorded machine" in write_report([record], tmp_path, drawn=False).markdown.read_text(encoding="utf-8")


def test_the_sweep_and_the_machine_fit_a_line_each() -> None:
    records = sweep()
    assert provenance.sweep_line(records, frame(records)) == (
        "16 configurations: torch, digits, fp32, weak scaling; stage 0, 1, 2, 3 × 1, 2, 4, 8 ranks; "
        "5 launches of 20 measured steps each"
    )
    assert provenance.machine_line(records[0].environment) == (
        "Intel(R) Xeon(R) Processor @ 2.60GHz, 2 cores, 8.00 GiB, no GPU, torch 2.15.0, python 3.11.9, "
        "commit 0123456789 with uncommitted changes"
    )


def test_a_full_product_is_run_again_by_one_line_and_anything_else_cell_by_cell() -> None:
    (line,) = provenance.commands(sweep())
    assert line.startswith("python -m bench -m engine=torch ")
    assert " stage=0,1,2,3 gpus=1,2,4,8 " in line
    assert "tracking" not in line and "null" not in line
    assert len(provenance.commands([*sweep((0,), (1, 2)), *sweep((1,), (1,))])) == 3
    assert " bucket_mb=null,25.0 " in provenance.commands([cell(), cell(bucket_mb=25.0)])[0]


def test_the_terminal_answers_first_fits_80_columns_and_ends_with_the_paths(troubled: ReportPaths) -> None:
    out = io.StringIO()
    print_summary(Content(troubled_sweep()), troubled, console=Console(file=out, width=80, force_terminal=False))
    lines = out.getvalue().splitlines()
    first, last = (next(at for at, line in enumerate(lines) if line.startswith(mark)) for mark in ("stage ", "/s:"))
    table = lines[first:last]
    assert first > 0 and len(table) == 17
    assert all(len(line) <= 80 and "…" not in line for line in table)
    assert [line.split()[-1] for line in lines[-3:]] == [str(troubled.csv), str(troubled.markdown), str(troubled.html)]
    assert "\x1b" not in out.getvalue()


def test_other_settings_head_tables_of_their_own(plain: ReportPaths, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(Content(sweep((0,), (1,)) + sweep((0,), (1,), precision="bf16")), plain)
    lines = capsys.readouterr().out.splitlines()
    assert "bf16" in lines and "fp32" in lines


def test_the_command_line_reports_on_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_all(sweep((0, 3), (1, 2)), tmp_path)
    (folder / "records" / "broken.json").write_text("{")
    assert main(["report", str(folder)]) == 0
    assert {"summary.csv", "report.md", "report.html", "figures"} <= {path.name for path in folder.iterdir()}
    output = capsys.readouterr().out
    assert "warning:" in output and "broken.json" in output
    assert "broken.json" in (folder / "report.html").read_text(encoding="utf-8")
    assert main(["report", str(folder / "records"), "--out", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "elsewhere" / "report.html").is_file()


def test_the_command_line_rejects_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    folder = write_all([cell()], tmp_path / "sweep")
    for arguments in ([str(tmp_path / "nowhere")], [str(file)], [str(folder), "--out", str(file)]):
        assert main(["report", *arguments]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ") and errors.count("\n") == 1


def test_what_draws_nothing_loads_nothing_that_draws() -> None:
    comparisons = [f"comparison.{name}" for name in ("compare", "history", "noise", "counter_check")]
    code = "import importlib, sys\n"
    code += f"for name in {['advice.recommend', *comparisons, 'report.terminal']}:\n"
    code += " importlib.import_module(f'analysis.{name}')\n"
    code += " if {'matplotlib', 'seaborn'} & set(sys.modules): sys.exit(f'{name} loads what draws')"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[4], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_importing_analysis_and_its_command_line_stays_light() -> None:
    code = "import sys, analysis, analysis.__main__; sys.exit(bool({'pandas', 'seaborn', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4], check=False).returncode == 0
