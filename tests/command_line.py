"""Commands of the suite as a person runs them, each in a process of its own that need not import the libraries again.

A server of ``multiprocessing`` imports them once; a command is a fork of it, with a folder, an environment and an
output of its own, which then runs its module as ``python -m`` does. What belongs to this suite it imports by itself.
A test of how Python starts, or that signals the process, starts a Python instead.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]

LIBRARIES = [
    *("hydra", "hydra.core.override_parser.overrides_parser", "hydra._internal.hydra", "rich.progress", "jinja2"),
    *("mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "pandas", "pyarrow.parquet", "scipy.stats"),
    *("seaborn", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
]
"""What commands import before and beside their work; nothing of torch, which no command's own process needs."""

CREATED = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def run(
    *words: str, cwd: Path, variables: Mapping[str, str] | None = None, timeout: float = 600, drawn: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m *words`` in ``cwd``, with ``variables`` added to the environment.

    Where ``drawn`` is false, reports have no figures, which take most of their time. Raises
    subprocess.TimeoutExpired after ``timeout`` seconds; the process is killed then.
    """
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    environment |= {"PYTHONPATH": str(ROOT), **(variables or {})}
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(LIBRARIES)
    with tempfile.TemporaryDirectory() as place:
        output, errors = Path(place, "stdout"), Path(place, "stderr")
        process = server.Process(target=_command, args=(words, str(cwd), environment, drawn, str(output), str(errors)))
        process.start()
        try:
            process.join(timeout)
        finally:
            ended = process.exitcode is not None
            process.kill()
            process.join()
        if not ended:
            raise subprocess.TimeoutExpired(words, timeout)
        encoding = environment.get("PYTHONIOENCODING")
        return subprocess.CompletedProcess(
            words, process.exitcode or 0, output.read_text(encoding), errors.read_text(encoding)
        )


def _command(
    words: Sequence[str], cwd: str, environment: Mapping[str, str], drawn: bool, output: str, errors: str
) -> None:
    """In the fork: become ``python -m`` with these words. Its exit status is that of the process."""
    for number, (path, flags) in enumerate([(os.devnull, os.O_RDONLY), (output, CREATED), (errors, CREATED)]):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    encoding = environment.get("PYTHONIOENCODING")
    sys.stdin, sys.stdout = open(0), open(1, "w", encoding=encoding)  # noqa: SIM115 (the process's own, until it ends)
    sys.stderr = open(2, "w", encoding=encoding, errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    os.chdir(cwd)
    libraries = [path for path in sys.path if path != "" and Path(path).resolve() != ROOT]
    sys.path[:] = [cwd, *environment["PYTHONPATH"].split(os.pathsep), *libraries]
    sys.argv = list(words)
    if not drawn:
        from analysis.report import write

        mock.patch.object(write, "draw", return_value=[]).start()
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
