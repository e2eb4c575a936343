"""The steps of a night: commands that a person could run by hand, what their exit codes mean, and what they printed."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

from bench.measure.machine import source
from bench.measure.machine.source import ROOT

EXACT = Path("results/reference/cpu-gloo/exact.json")
CPU_SWEEP = (
    *("engine=native", "workload=digits", "stage=0,3", "gpus=1,2", "precision=fp32"),
    *("steps=5", "warmup=1", "repeats=2"),
)
"""The sweep without a GPU: does everything work, in minutes."""
GPU_TIMED = ("workload=vit_b_16", "stage=0,1,2,3", "precision=amp_bf16", "steps=20", "warmup=5")
CPU_TIMED = ("workload=digits", "stage=0,3", "gpus=2", "steps=5", "warmup=1", "repeats=10")
"""Cells of the time gate: few, since each has many launches."""

TIME_GATE = "time gate"
JUDGED = "judged-commit"
"""In a night's folder, the commit that its time gate came to a verdict on."""

PROMPT = "$ "
Verdict = Literal["ok", "note", "found", "not run"]


@dataclass(frozen=True)
class Step:
    """Commands that belong together, and what their exit codes mean."""

    name: str
    commands: list[list[str]]
    means: dict[int, Verdict]
    """By the last command's exit code; any other is ``not run``."""
    why_not: str = ""
    """Why there are no commands, where there are none."""
    earlier: tuple[int, ...] = (0,)
    """Exit codes of the commands before the last with which the last can judge; any other is ``not run``."""


@dataclass(frozen=True)
class Night:
    """Where one night's files are, what it compares with, and what it may use."""

    folder: Path
    home: Path
    base: str
    gpus: int
    uri: str | None
    previous: Path | None
    """The sweep of the last night here."""


def steps(night: Night) -> list[Step]:
    """The night after its preflight, in order."""
    # The code that the base has: the time gate would compare it with itself.
    code = source.collect(())
    same = code.commit == resolved(night.base) and not code.dirty
    python, sweep, exact = sys.executable, str(night.folder / "sweep"), str(night.folder / "exact")
    quiet = "tracking=none"
    asked = gpu_sweep(night.gpus) if night.gpus else list(CPU_SWEEP)
    timed = [*GPU_TIMED, f"gpus={night.gpus}"] if night.gpus else list(CPU_TIMED)
    kept = str(night.home / "hot-paths")
    paths = [python, "-m", "pytest", "benchmarks", "--benchmark-only", "--benchmark-autosave"]
    paths += [f"--benchmark-storage={kept}", "--benchmark-columns=min,median,rounds"]
    log = [python, "-m", "bench.tracking", "import", sweep, *(["--uri", night.uri] if night.uri else [])]
    compare = [[python, "-m", "analysis", "compare", str(night.previous), sweep]] if night.previous else []
    return [
        Step(
            "sweep",
            [[python, "-m", "bench", "experiment=nightly", *asked, quiet, f"hydra.sweep.dir={sweep}"]],
            {0: "ok", 1: "found"},
        ),
        Step(
            "exact gate",
            [
                [python, "-m", "bench", "experiment=exact", f"hydra.sweep.dir={exact}"],
                [python, "-m", "analysis", "gate", exact, "--baseline", str(EXACT)],
            ],
            {0: "ok", 1: "found", 3: "note"},
            earlier=(0, 1),  # a cell that fails is the gate's to judge
        ),
        Step(
            TIME_GATE,
            [] if same else [[python, "-m", "bench.regress", "--base", night.base, *timed]],
            {0: "ok", 1: "found"},
            why_not=f"the code is that of {night.base}",
        ),
        Step("last night", compare, {0: "ok", 1: "note", 2: "note"}, why_not="no earlier night here"),
        Step(
            "hot paths",
            [paths, [python, "-m", "benchmarks.against_earlier", kept]],
            {0: "ok", 1: "found"},
        ),
        Step("mlflow", [log], {0: "ok", 1: "note"}),
    ]


def gpu_sweep(gpus: int) -> list[str]:
    """What fits experiment=nightly to so many GPUs: one, two and all of them."""
    return [f"gpus={','.join(map(str, sorted({1, min(2, gpus), gpus})))}"]


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    step: Step
    verdict: Verdict
    reason: str
    """Why it was not run; empty if it was."""
    seconds: float
    log: Path | None
    """What its commands printed, each after a line with the command itself."""
    command: Sequence[str] = ()
    """The command that decided; empty where none was run."""

    def said(self) -> list[str]:
        """The lines that the deciding command printed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log else []
        prompts = [prompt(command) for command in self.step.commands]
        begins = max((at for at, line in enumerate(lines) if line == prompt(self.command)), default=-1) + 1
        ends = next((at for at, line in enumerate(lines) if at >= begins and line in prompts), len(lines))
        return lines[begins:ends]


def run(step: Step, log: Path) -> Outcome:
    """Runs a step's commands one after another, prints and keeps what they say, and judges how they end.

    The last one's exit code decides, unless one before it ended so that the last had not all to judge.
    """
    if not step.commands:
        return Outcome(step, "ok", step.why_not, 0.0, None)
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with open(log, "w", encoding="utf-8") as kept:
        codes = [stream(command, kept) for command in step.commands]
    last = len(codes) - 1
    decides = next((at for at, code in enumerate(codes[:last]) if code not in step.earlier), last)
    verdict = step.means.get(codes[last], "not run") if decides == last else "not run"
    ended = Outcome(step, verdict, "", time.monotonic() - started, log, step.commands[decides])
    if verdict == "not run" or (verdict != "ok" and crashed(ended.said())):
        return replace(ended, verdict="not run", reason=f"ended with code {codes[decides]}")
    return ended


def crashed(said: Sequence[str]) -> bool:
    """Whether Python gave up, which it ends with the exit code that a gate has for what it found."""
    return any(line.startswith("Traceback (most recent call last)") or ": No module named " in line for line in said)


def stream(command: list[str], kept: IO[str]) -> int:
    """The command's exit code; what it prints goes to the terminal and to ``kept``. Ctrl-C ends it first."""

    def tell(line: str) -> None:
        print(line, end="", flush=True)
        print(line, end="", file=kept, flush=True)

    tell(f"{prompt(command)}\n")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert process.stdout is not None
    try:
        for line in process.stdout:
            tell(line)
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def prompt(command: Sequence[str]) -> str:
    """The line that a log has before what the command printed."""
    return f"{PROMPT}{shown(command)}"


def shown(command: Sequence[str]) -> str:
    """A command as a person would type it."""
    return shlex.join(["python" if part == sys.executable else part for part in command])


def earlier_sweep(home: Path) -> Path | None:
    """The newest sweep of an earlier night here that has records."""
    found = sorted(path.parent for path in home.glob("*/sweep/records") if any(path.glob("*.json")))
    return found[-1] if found else None


def judged_commit(home: Path) -> str | None:
    """The commit of the newest night here whose time gate came to a verdict, of those that this checkout has.

    One that was cut off before has judged nothing: with its commit as the base, what it ran would never be timed.
    """
    commits = (path.read_text(encoding="utf-8").strip() for path in sorted(home.glob(f"*/{JUDGED}"), reverse=True))
    return next(filter(resolved, commits), None)


def resolved(revision: str) -> str:
    """The commit that a revision names in this checkout; empty if it names none."""
    return source.git(ROOT, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").text.strip()
