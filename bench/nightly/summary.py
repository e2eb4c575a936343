"""The night in one page of Markdown, ready to be filed as an issue: what is worse first, then how each step ended.

    python -m bench.nightly.summary FOLDER

Reads what ``scripts/nightly.sh`` left in the night's folder. Exit code: that of the worst step, 0 if nothing is worse,
1 if a check failed or a regression was found, 2 if a step could not run or the machine is not fit, 130 if interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.measure.machine import environment, limits, source
from results.record import Record, RecordError
from terminal.output import prepare_output

Verdict = Literal["ok", "note", "worse", "not run"]
STEPS: dict[str, dict[int, Verdict]] = {
    "preflight": {0: "ok"},
    "sweep": {0: "ok", 1: "worse"},
    "exact-sweep": {0: "ok", 1: "ok"},  # the gate judges cells that fail
    "exact-gate": {0: "ok", 1: "worse", 3: "note"},
    "time-gate": {0: "ok", 1: "worse"},
    "last-night": {0: "ok", 1: "note", 2: "note"},
    "hot-paths": {0: "ok"},
    "hot-paths-compared": {0: "ok", 1: "worse"},
    "claims": {0: "ok", 1: "worse"},
    "mlflow": {0: "ok", 1: "note"},
}
"""By step, what its exit codes mean; any other is ``not run``."""
EXIT: dict[Verdict, int] = {"ok": 0, "note": 0, "worse": 1, "not run": 2}
INTERRUPTED = 130
MAX_LINES = 40
"""Of a step's output; its log has the rest."""
FENCE = "~~~~~~"


@dataclass(frozen=True)
class StepOutcome:
    """The outcome of a step."""

    name: str
    verdict: Verdict
    reason: str = ""
    """Why it was skipped or could not run; empty if it ran."""
    seconds: float = 0.0
    command: str = ""
    """As a person would type it; empty where the step was skipped."""
    lines: tuple[str, ...] = ()
    """The command's output."""


def outcome(logs: Path, name: str) -> StepOutcome | None:
    """The outcome of a step of this night; None if it did not run."""
    skipped, log, code = (logs / f"{name}.{ending}" for ending in ("skipped", "log", "code"))
    if skipped.exists():
        return StepOutcome(name, "ok", skipped.read_text(encoding="utf-8").strip())
    if not code.exists():
        return None
    prompt, *lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    number, seconds = map(int, code.read_text(encoding="utf-8").split())
    verdict = STEPS[name].get(number, "not run")
    if verdict != "ok" and crashed(lines):
        verdict = "not run"
    reason = f"exited with status {number}" if verdict == "not run" else ""
    return StepOutcome(name, verdict, reason, seconds, prompt.removeprefix("$ "), tuple(lines))


def crashed(lines: Sequence[str]) -> bool:
    """Whether Python failed; its exit code is then the same as a check's that found something."""
    return any(line.startswith("Traceback (most recent call last)") or ": No module named " in line for line in lines)


def write(folder: Path) -> tuple[str, int]:
    """Writes ``summary.md``, and appends it to the job's page in GitHub Actions; its title and the exit code."""
    logs = folder / "logs"
    outcomes = [ended for name in STEPS if (ended := outcome(logs, name))]
    interrupted = (logs / "interrupted").exists()
    title = headline(outcomes, interrupted=interrupted)
    sections = [[f"# {title}", "", *where(folder)]]
    sections += [worse(folder, ended) for ended in outcomes if ended.verdict != "ok"]
    sections += [
        [f"## {ended.name}", "", FENCE, *ended.lines, FENCE] for ended in outcomes[:1] if ended.verdict == "ok"
    ]
    text = "\n\n".join("\n".join(section) for section in [*sections, steps(outcomes)]) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if page:
        with open(page, "a", encoding="utf-8") as job:
            job.write(text)
    if any(ended.name == "time-gate" and ended.command and ended.verdict in ("ok", "worse") for ended in outcomes):
        # The next night compares with this code. A night that was cut off before has judged nothing.
        (folder / "judged").write_text((folder / "commit").read_text(encoding="utf-8"), encoding="utf-8")
    return title, INTERRUPTED if interrupted else max(
        (EXIT[ended.verdict] for ended in outcomes), default=EXIT["not run"]
    )


def headline(outcomes: Sequence[StepOutcome], *, interrupted: bool) -> str:
    if outcomes and outcomes[0].name == "preflight" and outcomes[0].verdict != "ok":
        wrong = [line.split(": ")[1] for line in outcomes[0].lines if line.startswith("preflight: ")]
        return f"Nightly: the machine is not fit ({', '.join(wrong)}); nothing was measured"
    words = [
        f"{', '.join(names)} {says}"
        for verdict, says in (("worse", "found something"), ("not run", "could not run"))
        if (names := [ended.name for ended in outcomes if ended.verdict == verdict])
    ]
    last = outcomes[-1].name if outcomes else "the start"
    words += [f"interrupted after {last}"] if interrupted else []
    return f"Nightly: {'; '.join(words) or 'nothing is worse'}"


def where(folder: Path) -> list[str]:
    code = source.collect(())
    dirty = ", with uncommitted changes" if code.dirty else ""
    base = folder / "base"
    compared = f"; base of the time gate: `{base.read_text(encoding='utf-8').strip()}`" if base.exists() else ""
    lines = [
        f"- code: `{code.commit or 'unknown'}`{dirty}{compared}",
        f"- machine: {environment.cpu_model()}, {limits.usable_cores():g} cores",
        f"- files: `{folder}`",
    ]
    server, repository, run = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    if server and repository and run:
        lines.append(f"- job and artifacts: {server}/{repository}/actions/runs/{run}")
    return lines


def worse(folder: Path, ended: StepOutcome) -> list[str]:
    """A step that did not end ok: its command and the end of its output."""
    lines = [f"## {ended.name}: {ended.reason or ended.verdict}", ""]
    if ended.name == "sweep":
        lines += [f"- {cell}" for cell in failed_cells(folder / "sweep")] + [""]
    cut = [f"... {len(ended.lines) - MAX_LINES} lines before"] if len(ended.lines) > MAX_LINES else []
    return [*lines, f"`{ended.command}`", "", FENCE, *cut, *ended.lines[-MAX_LINES:], FENCE]


def failed_cells(sweep: Path) -> list[str]:
    """The cells of a sweep that failed, and why."""
    cells = []
    for path in sorted((sweep / "records").glob("*.json")):
        try:
            record = Record.read(path)
        except RecordError as error:
            cells.append(f"{path.name}: {error}")
            continue
        if record.status not in ("ok", "unsupported", "unavailable"):
            cells.append(f"{record.cell_id}: {record.status}: {' '.join(record.reason.split())}")
    return cells


def steps(outcomes: Sequence[StepOutcome]) -> list[str]:
    """The table of all steps, and their commands."""
    rows = [("step", "verdict", "took", "last line of output", "log"), ("---",) * 5]
    for ended in outcomes:
        last = ended.reason or next((line.strip() for line in reversed(ended.lines) if line.strip()), "")
        log = f"`logs/{ended.name}.log`" if ended.command else ""
        rows.append((ended.name, ended.verdict, f"{ended.seconds:.0f} s", last[:160], log))
    table = [f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in row)} |" for row in rows]
    commands = [ended.command for ended in outcomes if ended.command]
    return ["## Steps", "", *table, "", "By hand:", "", FENCE, *commands, FENCE]


def main() -> int:
    prepare_output()
    parser = argparse.ArgumentParser(prog="python -m bench.nightly.summary", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of the night")
    folder = parser.parse_args().folder
    title, code = write(folder)
    print(f"\n{title}\nsummary {folder / 'summary.md'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
