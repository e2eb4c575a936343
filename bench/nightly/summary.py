"""The night in one page of Markdown, ready to be filed as an issue: what is worse first, then how it was found."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.measure.machine import environment, limits, source
from bench.nightly.preflight import Finding
from bench.nightly.steps import Outcome, shown
from results.record import Record, RecordError

MOST_LINES = 40
"""Of what a step printed; its log has the rest."""
FENCE = "~~~~~~"


def write(
    folder: Path, findings: Sequence[Finding], outcomes: Sequence[Outcome], *, base: str, interrupted: str
) -> str:
    """Writes ``summary.md``, appends it to the job's page in GitHub Actions, and returns its title.

    ``interrupted`` is the step in which the night was; empty if it was not.
    """
    title = headline(findings, outcomes, interrupted=interrupted)
    sections = [
        [f"# {title}", "", *where(folder, base)],
        *(worse(folder, outcome) for outcome in outcomes if outcome.verdict != "ok"),
        machine(findings),
        steps(folder, outcomes),
    ]
    text = "\n\n".join("\n".join(section) for section in sections) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if page:
        with open(page, "a", encoding="utf-8") as job:
            job.write(text)
    return title


def headline(findings: Sequence[Finding], outcomes: Sequence[Outcome], *, interrupted: str) -> str:
    wrong = [finding.what for finding in findings if finding.verdict == "wrong"]
    if wrong:
        return f"Nightly: the machine is not fit ({', '.join(wrong)}); nothing was measured"
    counts = Counter(outcome.verdict for outcome in outcomes)
    words = [
        f"{', '.join(outcome.step.name for outcome in outcomes if outcome.verdict == verdict)} {says}"
        for verdict, says in (("found", "found something"), ("not run", "could not be run"))
        if counts[verdict]  # type: ignore[index]
    ]
    words += [f"interrupted in {interrupted}"] if interrupted else []
    return f"Nightly: {'; '.join(words) or 'nothing is worse'}"


def where(folder: Path, base: str) -> list[str]:
    code = source.collect(())
    dirty = ", with uncommitted changes" if code.dirty else ""
    lines = [
        f"- code: `{code.commit or 'unknown'}`{dirty}; base of the time gate: `{base}`",
        f"- machine: {environment.cpu_model()}, {limits.usable_cores():g} cores",
        f"- files: `{folder}`",
    ]
    server, repository, run = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    if server and repository and run:
        lines.append(f"- job and artifacts: {server}/{repository}/actions/runs/{run}")
    return lines


def worse(folder: Path, outcome: Outcome) -> list[str]:
    """A step that did not end ok: the command that decided, and what that said."""
    lines = [f"## {outcome.step.name}: {outcome.reason or ('worse' if outcome.verdict == 'found' else 'to know')}", ""]
    if outcome.step.name == "sweep":
        lines += [f"- {cell}" for cell in failed_cells(folder / "sweep")] + [""]
    said = outcome.said()
    cut = [f"... {len(said) - MOST_LINES} lines before"] if len(said) > MOST_LINES else []
    return [*lines, f"`{shown(outcome.command)}`", "", FENCE, *cut, *said[-MOST_LINES:], FENCE]


def failed_cells(sweep: Path) -> list[str]:
    """The cells of a sweep that did not end well, and why."""
    found = []
    for path in sorted((sweep / "records").glob("*.json")):
        try:
            record = Record.read(path)
        except RecordError as error:
            found.append(f"{path.name}: {error}")
            continue
        if record.status not in ("ok", "unsupported", "unavailable"):
            found.append(f"{record.cell_id}: {record.status}: {' '.join(record.reason.split())}")
    return found


def machine(findings: Sequence[Finding]) -> list[str]:
    rows = [(finding.what, finding.found, finding.verdict, finding.advice) for finding in findings]
    return ["## Machine", "", *table(("checked", "found", "", "what to know"), rows)]


def steps(folder: Path, outcomes: Sequence[Outcome]) -> list[str]:
    rows = []
    for outcome in outcomes:
        said = [line.strip() for line in outcome.said() if line.strip()]
        log = f"`{outcome.log.relative_to(folder)}`" if outcome.log else ""
        last = outcome.reason or (said[-1] if said else "")
        rows.append((outcome.step.name, outcome.verdict, f"{outcome.seconds:.0f} s", last[:160], log))
    commands = [shown(command) for outcome in outcomes for command in outcome.step.commands]
    by_hand = ["", "By hand:", "", FENCE, *commands, FENCE] if commands else []
    heading = ("step", "verdict", "took", "its last word", "log")
    return ["## Steps", "", *table(heading, rows), *by_hand]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; a cell's own bars and line ends cannot break it."""
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in line)} |" for line in lines]
