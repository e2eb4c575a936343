"""The code of another revision: a git worktree of it, and a launcher whose ranks run that code.

Both revisions speak the fork server's protocol: a request in, a LaunchResult out, as JSON. A field that the other
revision does not have yet is left out while it is at its default, and is an error where it is not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.checks import ConfigError
from bench.job import Job, LaunchResult, R
from bench.launch.local import LocalLauncher
from bench.launch.server_process import SERVER
from bench.measure.machine.command import CommandOutput
from bench.measure.machine.source import ROOT, git
from bench.regress.untyped import typed, untyped

NO_REASON = "no reason given"

OWN = """\
import dataclasses, json, sys, typing
from pathlib import Path

import bench

if not Path(bench.__file__ or "/").resolve().is_relative_to(Path(sys.argv[1]).resolve()):
    sys.exit("it has no package bench of its own")
"""
"""Begins what another revision's interpreter runs: it must import the code that is meant."""

DEFAULTS = """\
if (Path(sys.argv[1]) / "results/settings.py").is_file():
    from results.settings import Config
else:
    from bench.config import Config  # where revisions had it that this one is compared with

print(json.dumps(dataclasses.asdict(Config())))
"""

ASK = """\
from bench import engines

if (Path(sys.argv[1]) / "bench/messages.py").is_file():
    from bench.messages import RESULTS as jobs
else:
    from bench.job import Job  # one for all purposes, where revisions had it

    jobs = [Job]

if (Path(sys.argv[1]) / "bench/launch").is_dir():
    from bench.measure.machine import environment

    server = "bench.launch.forkserver"
else:
    from bench.measure import environment  # where revisions had it that this one is compared with

    server = "bench.forkserver"

def fields(kind, by_class):
    for part in typing.get_args(kind):
        fields(part, by_class)
    if dataclasses.is_dataclass(kind) and kind.__name__ not in by_class:
        hints = typing.get_type_hints(kind)
        by_class[kind.__name__] = [field.name for field in dataclasses.fields(kind)]
        for hint in hints.values():
            fields(hint, by_class)
    return by_class

packages = {name: version for name in environment.PACKAGES if (version := environment.package_version(name))}
by_class = {}
for kind in jobs:
    fields(kind, by_class)
print(json.dumps([server, by_class, engines.preload(*sys.argv[2:]), packages]))
"""
"""Run by the other revision's code: its fork server, the fields of each request there, the modules that its ranks
import, and the packages it has."""


@contextlib.contextmanager
def checked_out(revision: str, repository: Path = ROOT) -> Iterator[Path]:
    """The project's folder in a temporary worktree of ``revision``, gone again at the end. Raises ConfigError."""
    checkout = git(repository, "rev-parse", "--show-toplevel")
    if checkout.error:
        raise ConfigError(f"--base needs git and a checkout; {repository}: {checkout.error}")
    named = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if named.error not in ("", NO_REASON):  # without such a revision, --quiet gives none
        raise ConfigError(f"git cannot look up --base {revision}: {named.error}")
    if not named.text:
        raise ConfigError(f"--base {revision} is no revision of {repository}; valid: a commit, branch or tag it has")
    folder = Path(tempfile.mkdtemp(prefix="bench-base-"))
    tree = folder / "tree"
    try:
        hooks = f"core.hooksPath={os.devnull}"
        added = _git(repository, "-c", hooks, "worktree", "add", "--quiet", "--detach", str(tree), named.text)
        prefix = _git(repository, "rev-parse", "--show-prefix")
        if error := added.error or prefix.error:
            raise ConfigError(f"git cannot check out --base {revision}: {error}")
        yield tree / prefix.text
    finally:
        with uninterrupted():
            _git(repository, "worktree", "remove", "--force", str(tree))
            shutil.rmtree(folder, ignore_errors=True)
            pruned = _git(repository, "worktree", "prune")
        if pruned.error:
            print(f"git cannot remove its entry of {tree}: {pruned.error}; git worktree prune does", file=sys.stderr)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets a short clean-up end, however often somebody presses Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _git(repository: Path, *arguments: str) -> CommandOutput:
    """The output of git; its last line becomes the error; ``NO_REASON`` if it fails without one."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments],
            env=inherited,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            start_new_session=True,  # Ctrl-C must not stop it half way
        )
    except OSError as error:
        return CommandOutput(error=f"git: {error.strerror}")
    if done.returncode:
        return CommandOutput(error=(done.stderr.strip().splitlines() or [NO_REASON])[-1])
    return CommandOutput(done.stdout.strip())


@dataclass(frozen=True)
class Revision:
    """Another revision's code and the interpreter that runs it."""

    name: str
    tree: Path
    python: str
    job_fields: dict[str, list[str]]
    """Fields that it has of each request and of each dataclass within."""
    preload: tuple[str, ...]
    packages: dict[str, str]
    server: str = SERVER

    @property
    def is_untyped(self) -> bool:
        """Whether it has one request for all purposes (``bench.regress.untyped``)."""
        return "purpose" in self.job_fields.get("Job", [])

    @property
    def variables(self) -> dict[str, str]:
        return variables(self.tree)


def variables(tree: Path) -> dict[str, str]:
    """Environment of a Python that imports ``tree``, then what it would find from here."""
    places = [str(tree), str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(places), "PYTHONSAFEPATH": "1"}


def setting_defaults(name: str, tree: Path, python: str) -> dict[str, Any]:
    """Every setting with its default in the code of ``tree``. Raises ConfigError if it is too old."""
    defaults: dict[str, Any] = _answer(name, tree, python, DEFAULTS)
    return defaults


def ask(name: str, tree: Path, python: str, packages: list[str]) -> Revision:
    """Requests that the code in ``tree`` reads; ``packages`` are the engines'. Raises ConfigError if it is too old."""
    server, fields, preload, versions = _answer(name, tree, python, ASK, *packages)
    return Revision(name, tree, python, fields, tuple(preload), versions, server)


def _answer(name: str, tree: Path, python: str, script: str, *arguments: str) -> Any:
    """Runs ``script`` with the code in ``tree``; its output, as JSON. Raises ConfigError."""
    try:
        done = subprocess.run(
            [python, "-c", OWN + script, str(tree), *arguments],
            env=os.environ | variables(tree),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise ConfigError(f"--base-python {python} cannot be run: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(f"--base {name} cannot take launches from this code ({last}); name a later revision")
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        raise ConfigError(f"--base-python {python} does not answer as Python does; name an interpreter") from error


class RevisionLauncher(LocalLauncher):
    """A launcher of another revision's code."""

    def __init__(self, revision: Revision) -> None:
        self._revision = revision
        command = [revision.python, "-m", revision.server]
        super().__init__(revision.preload, command=command, variables=revision.variables)

    def _message(self, job: Job[Any]) -> dict[str, Any]:
        return understood(job, self._revision)

    def _result(self, message: dict[str, Any], job: Job[R]) -> LaunchResult[R]:
        return super()._result(typed(message), job)


def understood(job: Job[Any], revision: Revision) -> dict[str, Any]:
    """A request as ``revision`` reads it. Raises ConfigError, which names the field, for one that it cannot read."""
    if revision.is_untyped:
        return in_fields(job, untyped(job), revision.job_fields["Job"], revision)
    return {"kind": type(job).__name__} | part(job, revision)


def part(whole: Any, revision: Revision) -> dict[str, Any]:
    """A request, or a dataclass within, in the fields that ``revision`` has."""
    values = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
    return in_fields(whole, values, revision.job_fields.get(type(whole).__name__, []), revision)


def in_fields(whole: Any, values: dict[str, Any], fields: list[str], revision: Revision) -> dict[str, Any]:
    """Those of ``values`` that are among ``fields``; all others must be at the defaults of ``whole``."""
    message = {}
    defaults = {field.name: default_of(field) for field in dataclasses.fields(whole)}
    for name, value in values.items():
        if name in fields:
            message[name] = part(value, revision) if dataclasses.is_dataclass(value) else value
        elif value != defaults.get(name, dataclasses.MISSING):
            kind = type(whole).__name__
            raise ConfigError(f"--base {revision.name} has no {kind}.{name}, here {value!r}; name a later one")
    return message


def default_of(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
