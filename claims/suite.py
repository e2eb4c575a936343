"""The steps of experiments: sweeps of this suite by its command line, and programs on ranks.

Each is run once however many claims ask for it, and its results stay in ``folder``: an interrupted run is resumed.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from results.atomic import write_whole
from results.read import NoRecords, load
from results.record import Record

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "python"
"""How commands are written for a person."""
ENDED = (0, 1)
"""Exit codes of a sweep that ended: 1 if a cell failed or lost parity, which may be what an experiment is about."""


class ExperimentError(RuntimeError):
    """An experiment could not be carried out; the message is one line."""


class Suite:
    """Runs experiments and keeps what they leave in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[str] = []
        """The commands that were requested since this list was last emptied, as a person would type them."""

    def sweep(self, *overrides: str) -> list[Record]:
        """The records of ``python -m bench -m`` with these overrides. Raises ExperimentError if it did not end."""
        self.commands.append(shlex.join([PYTHON, "-m", "bench", "-m", *overrides]))
        place = self.folder / "sweeps" / digest(overrides)
        if not (place / "summary.csv").exists():
            begun = any(place.glob("records/*.json"))
            own = [f"hydra.sweep.dir={place.resolve()}", "tracking=none", f"resume={str(begun).lower()}"]
            self._run(["-m", "bench", "-m", *overrides, *own], place, ENDED)
        try:
            return load([place]).records
        except NoRecords as error:
            raise ExperimentError(str(error)) from error

    def program(self, function: str, ranks: int = 1, *, may_die: bool = False, **arguments: Any) -> list[Any]:
        """Runs ``function`` (module:name) on so many ranks; returns the result of each.

        It is called with ``rank``, ``ranks`` and the arguments, within a gloo process group. Both they and what it
        returns are JSON. Raises ExperimentError if a rank raised or died; with ``may_die``, None stands for one that
        died.
        """
        command = ["-m", "claims.ranks", function, str(ranks), json.dumps(arguments, sort_keys=True)]
        self.commands.append(shlex.join([PYTHON, *command]))
        place = self.folder / "programs" / f"{digest(command)}.json"
        if not place.exists():
            done = self._run(command, place.with_suffix(""), (0,))
            write_whole(place, done)
        results: list[Any] = json.loads(place.read_text(encoding="utf-8"))
        if None in results and not may_die:
            raise ExperimentError(f"{function}: rank {results.index(None)} of {ranks} died")
        return results

    def _run(self, arguments: list[str], place: Path, ended: tuple[int, ...]) -> str:
        """Standard output of a Python that ended with one of these codes; its whole output is kept."""
        place.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        place.with_name(f"{place.name}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode not in ended:
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise ExperimentError(f"{shlex.join(arguments[:3])} ended with {done.returncode}: {last}")
        return done.stdout


def sound(record: Record) -> Record:
    """The record, if its cell ended well. Raises ExperimentError."""
    if record.status != "ok":
        raise ExperimentError(f"{record.cell_id}: {record.status} {record.reason}")
    return record


def step_s(record: Record) -> float:
    """The median step in seconds of the launch that was disturbed least. Raises ExperimentError."""
    return min(statistics.median(launch.step_times_s()) for launch in sound(record).launches)


def digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
