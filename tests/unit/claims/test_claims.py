"""Claims: the register and its document say what was measured, and a run loses nothing of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from claims import __main__ as command
from claims import document, findings
from claims.claim import Claim, Finding
from claims.findings import FindingEntry, Findings, NotFindings
from claims.register import CLAIMS, TOPICS
from claims.suite import ExperimentError, Suite

EVERY_CLAIM = [claim for claims in TOPICS.values() for claim in claims]
REFERENCE = findings.read(command.REFERENCE).by_claim


def test_every_claim_has_a_name_of_its_own_a_sentence_and_a_test() -> None:
    assert len(CLAIMS) == len(EVERY_CLAIM)
    for claim in EVERY_CLAIM:
        assert re.fullmatch(r"A\d+", claim.id)
        assert claim.statement.endswith(".") and claim.test.endswith("."), claim.id


def test_the_pages_are_what_the_reference_makes() -> None:
    on_disk = {path.name: path.read_text() for path in document.FOLDER.glob("*.md")}
    assert on_disk == document.pages(findings.read(command.REFERENCE))


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
        assert entry.commands and entry.finding.numbers
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


@pytest.mark.parametrize(("verdict", "code"), [("refuted", 0), ("supported", 1)])
@pytest.mark.usefixtures("three")
def test_a_verdict_that_changed_is_reported(verdict: str, code: int, tmp_path: Path) -> None:
    before = Findings({}, {"A1": FindingEntry(Finding(verdict, "Before."), [], "then")})
    before.write(tmp_path / "before.json")
    assert command.main(["A1", "--folder", str(tmp_path / "now"), "--against", str(tmp_path / "before.json")]) == code


def test_an_unknown_claim_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
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
def test_a_folder_that_holds_no_findings_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "claims.json").write_text("{")
    assert command.main(["--folder", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {tmp_path / 'claims.json'}: not findings") and message.count("\n") == 1
