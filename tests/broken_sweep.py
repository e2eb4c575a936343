"""A real sweep in a process of its own, to be broken on purpose.

All that it starts inherits an environment variable by which it is found.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from bench.launch.forkserver.template import NAME
from results.record import Record
from tests import command_line

ROOT = Path(__file__).resolve().parents[1]
FAULTY = (f"hydra.searchpath=[file://{ROOT}/tests/conf]", "workload=faulty")
QUICK = ("steps=2", "warmup=1", "measure.parity_steps=2", "measure.ceiling=false", "threads=1", "gpus=2")
MARK = "BENCH_TEST_SWEEP"
BENCH = "from bench.__main__ import main; main()"


def ranks_below(server: psutil.Process) -> list[psutil.Process]:
    """What a fork server has started, but for the processes that hold workloads."""
    below = []
    for process in server.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            below += [process] if process.name() != NAME else []
    return below


class Broken:
    """A sweep in a process of its own, and where it writes: ``folder``, and temporary files in ``temporary``."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder, self.temporary = home, home / "sweep", home / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.mark = uuid.uuid4().hex
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str, program: str = BENCH) -> subprocess.Popen[str]:
        """Starts a sweep in a Python of its own, which is killed if the test ends before it."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *self._words(arguments)],
            cwd=self.home,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def run(self, *arguments: str, program: str = "") -> tuple[int, str]:
        """A sweep to its end, whose report has no figures: its exit code and its output; nothing may be left.

        ``program`` runs it in a Python of its own instead.
        """
        if program:
            sweep = self.start(*arguments, program=program)
            output, errors = sweep.communicate(timeout=600)
            code = sweep.returncode
        else:
            done = command_line.run(
                "bench", *self._words(arguments), cwd=self.home, variables=self._variables, drawn=False
            )
            output, errors, code = done.stdout, done.stderr, done.returncode
        assert "Traceback" not in errors, errors
        assert self.left() == []
        return code, output + errors

    def _words(self, arguments: Sequence[str]) -> list[str]:
        tracked = any(argument.startswith("tracking") for argument in arguments)
        words = ["-m", *FAULTY, *QUICK, f"hydra.sweep.dir={self.folder}", *arguments]
        return words if tracked else [*words, "tracking=none"]

    @property
    def _variables(self) -> dict[str, str]:
        return {"TMPDIR": str(self.temporary), MARK: self.mark}

    def records(self) -> dict[str, Record]:
        return {path.stem: Record.read(path) for path in (self.folder / "records").glob("*.json")}

    def launches(self) -> int:
        return sum(len(record.launches) for record in self.records().values())

    def left(self) -> list[str]:
        entry = f"{MARK}={self.mark}".encode()
        processes = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if entry in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                    processes.append(f"{process.pid} {process.status()} {shlex.join(process.cmdline())[:200]}")
        return processes

    def wait_for(self, condition: Callable[[], bool], seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline and self.process and self.process.poll() is None, self.process
            time.sleep(0.02)

    def ranks(self) -> list[psutil.Process]:
        """Of the launch that runs now."""
        assert self.process
        with contextlib.suppress(psutil.Error):
            return [rank for server in self.servers() for rank in ranks_below(server)]
        return []

    def servers(self) -> list[psutil.Process]:
        assert self.process
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if "bench.launch.forkserver" in child.cmdline()]
        return []

    def assert_all_ended(self, cells: int, repeats: int) -> None:
        records = self.records()
        assert [record.status for record in records.values()] == ["ok"] * cells
        assert all(len({each.round for each in record.launches}) == repeats for record in records.values())
        assert (self.folder / "report.html").read_text().rstrip().endswith("</html>")
        assert list(self.temporary.glob("bench-*")) == []
        assert not list((self.folder / "records").glob(".*"))
