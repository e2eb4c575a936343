"""Claims: the register and its document say what was measured, and a run loses nothing of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from claims import __main__ as command
from claims import document, findings, plots
from claims.claim import Claim, Compared, ComparisonPlot, Finding, PlottedCurve, reproduced
from claims.findings import FindingEntry, Findings, NotFindings
from claims.published import horovod, projected
from claims.published.judgement import unless_undecided
from claims.register import CLAIMS, TOPICS
from claims.suite import ExperimentError, Suite

EVERY_CLAIM = [claim for claims in TOPICS.values() for claim in claims]
REFERENCE = findings.read(command.REFERENCE).by_claim


def test_every_claim_has_a_name_of_its_own_a_sentence_and_a_test() -> None:
    assert len(CLAIMS) == len(EVERY_CLAIM)
    for claim in EVERY_CLAIM:
        assert re.fullmatch(r"P\d+" if claim.source else r"A\d+", claim.id)
        assert claim.statement.endswith(".") and claim.test.endswith("."), claim.id


def test_the_pages_are_what_the_reference_makes() -> None:
    on_disk = {path.name: path.read_text() for path in document.FOLDER.glob("*.md")}
    assert on_disk == document.pages(findings.read(command.REFERENCE))
    plotted = {f"{id}.svg" for id, entry in REFERENCE.items() if entry.finding.plot}
    assert {path.name for path in document.FOLDER.glob("*.svg")} == plotted


def test_the_index_has_each_claim_with_its_verdict_and_a_number_that_was_measured() -> None:
    index = document.index(findings.read(command.REFERENCE))
    for id in CLAIMS:
        verdict = REFERENCE[id].finding.verdict if id in REFERENCE else document.NOT_MEASURED
        assert re.search(rf"^\| \[{id}\]\({id}\.md\) \| .+ \| \**{verdict}\** \|", index, re.M), id
    assert all(name in REFERENCE[id].finding.numbers for id, name in document.NUMBER.items())


@pytest.mark.parametrize("claim", [claim for claim in EVERY_CLAIM if claim.id in REFERENCE], ids=lambda claim: claim.id)
def test_the_reference_has_a_finding_that_was_measured_or_says_why_not(claim: Claim) -> None:
    entry = REFERENCE[claim.id]
    if claim.measured:
        assert (entry.commands and entry.finding.numbers) or (claim.source and entry.finding.compared)
    else:
        assert not entry.commands
        assert entry.finding == claim.find(Suite(Path("nowhere")))


def test_what_is_not_measured_is_no_verdict_about_the_claim(tmp_path: Path) -> None:
    verdicts = {claim.find(Suite(tmp_path)).verdict for claim in EVERY_CLAIM if not claim.measured}
    assert verdicts <= {"not testable here"}


def test_no_command_has_a_path_of_the_machine() -> None:
    text = command.REFERENCE.read_text()
    assert not re.search(r"(?<![\w/])/(tmp|home|root|work)/", text)


def test_findings_are_read_as_they_were_written(tmp_path: Path) -> None:
    original = Findings(
        {"torch": "2"}, {"A1": FindingEntry(Finding("refuted", "It is not.", {"ratio": 1.5}), ["python"], "now")}
    )
    original.write(tmp_path / "claims.json")
    assert findings.read(tmp_path / "claims.json") == original


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2}',
        '{"version": 1, "machine": {}, "claims": {"A1": {"finding": {"verdict": "?"}}}}',
    ],
)
def test_a_file_without_findings_is_named_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    path.write_text(text)
    with pytest.raises(NotFindings, match=re.escape(str(path))) as caught:
        findings.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "claim",
    [claim for claim in (*projected.CLAIMS, *horovod.CLAIMS) if claim.id != "P4"],
    ids=lambda claim: claim.id,
)
def test_a_projection_of_a_published_curve_is_what_the_reference_has(claim: Claim) -> None:
    finding, before = claim.find(Suite(Path("nowhere"))), REFERENCE[claim.id].finding
    assert finding.verdict == before.verdict
    ours, theirs = ([one.ours for one in each.compared] for each in (finding, before))
    assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize(
    ("low", "in_shape", "verdict"),
    [(1.9, False, "not testable here"), (2.1, False, "contradicted"), (2.1, True, "reproduced in shape")],
)
def test_a_projection_is_contradicted_only_outside_its_band(low: float, in_shape: bool, verdict: str) -> None:
    one = Compared("ratio", 2.0, 2.3, "", low, 2.6)
    assert unless_undecided(reproduced([one], 0.05, "So.", in_shape=in_shape)).verdict == verdict


def test_every_published_row_has_an_entry() -> None:
    assert {claim.id for claim in EVERY_CLAIM if claim.source} == {f"P{row}" for row in range(1, 19)}


def compared(*ours: float) -> list[Compared]:
    return [Compared("ratio", 2.0, value) for value in ours]


@pytest.mark.parametrize(
    ("ours", "in_shape", "verdict"),
    [
        ((2.0, 2.09), False, "reproduced"),
        ((2.0, 2.2), True, "reproduced in shape"),
        ((2.0, 2.2), False, "contradicted"),
    ],
)
def test_a_published_number_is_reproduced_within_its_tolerance(
    ours: tuple[float, ...], in_shape: bool, verdict: str
) -> None:
    assert reproduced(compared(*ours), 0.05, "So.", in_shape=in_shape).verdict == verdict


def test_a_page_has_the_published_number_ours_and_the_difference() -> None:
    claim = replace(made("P1"), source="A paper")
    page = document.page(claim, FindingEntry(Finding("reproduced", "So.", {}, compared(2.1)), [], "now"))
    assert "**Source:** A paper." in page
    assert "| ratio | 2 | 2.1 | +5.0 % |" in page


def test_a_plot_is_the_same_file_for_the_same_numbers(tmp_path: Path) -> None:
    plot = ComparisonPlot("GPUs", "rate", [PlottedCurve("a", [1, 2], [3, 4])], [PlottedCurve("a", [2], [5], [4], [6])])
    for name in ("one.svg", "other.svg"):
        plots.draw(plot, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def made(id: str, verdict: str = "refuted") -> Claim:
    return Claim(id, "It is so.", "See.", lambda suite: Finding(verdict, "Seen.", {"ratio": 2.0}), True, False)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> dict[str, Claim]:
    """Three claims instead of all; the second cannot be carried out."""

    def broken(suite: Suite) -> Finding:
        raise ExperimentError("no network")

    claims = {"A1": made("A1"), "A2": replace(made("A2"), find=broken), "A3": made("A3")}
    monkeypatch.setattr(command, "CLAIMS", claims)
    monkeypatch.setattr(command, "TOPICS", {"All": list(claims.values())})
    return claims


@pytest.mark.usefixtures("three")
def test_an_experiment_that_fails_costs_only_its_own_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--folder", str(tmp_path)]) == 1
    assert list(findings.read(tmp_path / "claims.json").by_claim) == ["A1", "A3"]
    assert "not carried out: no network" in capsys.readouterr().out


def test_what_is_finished_outlives_ctrl_c(three: dict[str, Claim], tmp_path: Path) -> None:
    def interrupted(suite: Suite) -> Finding:
        raise KeyboardInterrupt

    three["A2"] = replace(three["A2"], find=interrupted)
    assert command.main(["--folder", str(tmp_path)]) == 130
    assert list(findings.read(tmp_path / "claims.json").by_claim) == ["A1"]


@pytest.mark.usefixtures("three")
def test_one_claim_leaves_the_others_of_its_folder(tmp_path: Path) -> None:
    command.main(["A1", "--folder", str(tmp_path)])
    command.main(["A3", "--folder", str(tmp_path)])
    assert list(findings.read(tmp_path / "claims.json").by_claim) == ["A1", "A3"]


@pytest.mark.parametrize(
    ("verdict", "code", "line"),
    [
        ("refuted", 0, "verdicts: 1 unchanged, 1 not measured before\n"),
        ("supported", 1, "A1: refuted, was supported\n"),
    ],
)
@pytest.mark.usefixtures("three")
def test_a_check_reports_which_verdicts_changed(
    verdict: str, code: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tmp_path / "before.json"
    Findings({}, {"A1": FindingEntry(Finding(verdict, "Before."), [], "then")}).write(before)
    assert command.main(["A1", "A3", "--folder", str(tmp_path / "now"), "--check", str(before)]) == code
    assert line in capsys.readouterr().out


def test_an_unknown_claim_is_rejected_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["A16", "B2"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: no claim B2; valid: A") and message.count("\n") == 1


def test_what_two_claims_need_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(self: Suite, words: list[str], place: Path, ended: tuple[int, ...]) -> str:
        calls.append(words)
        return json.dumps([1, None])

    monkeypatch.setattr(Suite, "_run", run)
    (tmp_path / "programs").mkdir()
    first, second = Suite(tmp_path), Suite(tmp_path)
    answers = [suite.program("module:name", ranks=2, may_die=True) for suite in (first, second)]
    assert answers == [[1, None], [1, None]]
    assert len(calls) == 1
    assert second.commands == ["python -m claims.ranks module:name 2 '{}'"]


@pytest.mark.usefixtures("three")
def test_a_folder_that_holds_no_findings_is_rejected_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "claims.json").write_text("{")
    assert command.main(["--folder", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {tmp_path / 'claims.json'}: not findings") and message.count("\n") == 1
