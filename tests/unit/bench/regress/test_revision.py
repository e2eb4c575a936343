"""What another revision's code can be sent, and where it is checked out."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.checks import ConfigError
from bench.groups import CONF
from bench.job import TimingJob
from bench.measure.machine import source
from bench.measure.machine.command import CommandOutput
from bench.messages import job_message, read_job
from bench.plan.jobs import Jobs
from bench.regress import revision
from bench.regress.__main__ import composed
from bench.regress.untyped import PURPOSES, typed
from results.identity import flatten
from tests.conftest import MakeCell

THEIR_CONFIG = """
from dataclasses import dataclass, field

@dataclass
class Measure:
    batch_pool: int = 4

@dataclass
class Config:
    optimizer: str = "sgd"
    gone: int = 1
    measure: Measure = field(default_factory=Measure)
"""


@pytest.fixture
def job(make_cell: MakeCell, tmp_path: Path) -> TimingJob:
    return Jobs(make_cell(gpus=2), tmp_path).timing()


@pytest.fixture
def older() -> Callable[..., revision.Revision]:
    """A revision that lacks fields of Job."""
    fields = revision.ask("now", source.ROOT, sys.executable, ["bench.engines.torch"]).job_fields

    def make(*lacks: str) -> revision.Revision:
        fields_of_kind = {
            kind: [name for name in names if f"{kind}.{name}" not in lacks] for kind, names in fields.items()
        }
        return revision.Revision("v1", Path(), sys.executable, fields_of_kind, (), {})

    return make


def test_equal_code_is_sent_the_whole_job(job: TimingJob, older: Callable[..., revision.Revision]) -> None:
    assert revision.understood(job, older()) == job_message(job)


def test_a_field_that_the_other_revision_lacks_is_left_out_at_its_default(
    job: TimingJob, older: Callable[..., revision.Revision]
) -> None:
    message = revision.understood(job, older("TimingJob.silent", "EngineSpec.compile"))
    assert "silent" not in message and "compile" not in message["spec"]
    assert read_job(message) == job


def test_and_rejected_by_its_name_where_it_is_set(job: TimingJob, older: Callable[..., revision.Revision]) -> None:
    with pytest.raises(ConfigError, match=r"--base v1 has no TimingJob\.silent, here True; name a later one"):
        revision.understood(dataclasses.replace(job, silent=True), older("TimingJob.silent"))


def test_a_revision_with_one_request_for_all_purposes_gets_all_of_its_fields(make_cell: MakeCell) -> None:
    """As at the commit before requests had types."""
    required = ["purpose", "engine", "spec", "workload", "world_size", "rank_batch", "steps", "warmup", "batch_pool"]
    required += ["parity_steps", "memory", "threads", "deterministic", "timeout_s", "reference"]
    spec = ["stage", "precision", "world_size", "device", "backend", "options"]
    workload, optional = ["factory", "seed", "data_dir", "options"], ["collectives", "silent", "straggler_factor"]
    fields = {"Job": [*required, *optional], "EngineSpec": spec, "WorkloadSpec": workload}
    older = revision.Revision("v1", Path(), sys.executable, fields, (), {})
    for purpose in PURPOSES.values():
        message = revision.understood(getattr(Jobs(make_cell(gpus=2), Path()), purpose)(), older)
        assert message.keys() - set(optional) == set(required)
        assert message["purpose"] == purpose
    ceiling = revision.understood(Jobs(make_cell(gpus=2, precision="bf16"), Path()).ceiling(), older)
    assert (ceiling["spec"]["precision"], ceiling["spec"]["device"], ceiling["world_size"]) == ("bf16", "cpu", 2)
    with pytest.raises(ConfigError, match=r"--base v1 has no TimingJob\.straggler_rank, here 1; name a later one"):
        slow = dataclasses.replace(Jobs(make_cell(gpus=2), Path()).timing(), straggler_rank=1)
        revision.understood(slow, older)
    rank = {"ceiling": {}, "conditions": {"foreign_cpu_s": 2.0}, "foreign": {"make": 1.0}, "seconds": {}}
    interference = {"conditions": {"background_cpu_s": 2.0}, "background_processes": {"make": 1.0}}
    nested = {"ceiling": {}, "interference": interference, "seconds": {}}
    assert typed({"ranks": [rank]}) == {"ranks": [nested], "ends": []}
    flat, now = {"model": {"unit": "token", "random": True}}, {"model": {"unit": "token", "step": {"random": True}}}
    assert typed({"ranks": [flat]}) == typed({"ranks": [now]}) == {"ranks": [now], "ends": []}
    before = {"ranks": [{"describe": {}}], "ends": [{"rank": 0, "last_words": "x"}]}
    assert typed(before) == {"ranks": [{"description": {}}], "ends": [{"rank": 0, "last_output": "x"}]}


def test_code_without_a_job_is_too_old(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/__init__.py").touch()
    with pytest.raises(ConfigError, match=r"--base v0 cannot take launches .*ImportError.*; name a later revision"):
        revision.ask("v0", tmp_path, sys.executable, [])


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("nowhere/python", "--base-python nowhere/python cannot be run: No such file"),
        ("true", "--base-python true does not answer as Python does; name an interpreter"),
        ("echo", "--base-python echo does not answer as Python does; name an interpreter"),
    ],
)
def test_what_is_no_python_is_named(python: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        revision.ask("v0", source.ROOT, python, [])


@pytest.mark.parametrize("module", ["bench/config.py", "results/settings.py"])
def test_the_defaults_of_another_revision_are_its_own(tmp_path: Path, module: str) -> None:
    for package in ("bench", "results"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / module).write_text(THEIR_CONFIG)
    theirs = revision.setting_defaults("v0", tmp_path, sys.executable)
    assert theirs == {"optimizer": "sgd", "gone": 1, "measure": {"batch_pool": 4}}
    overrides = ["workload=mlp", "lr=0.1"]
    (now,), _ = composed(CONF, overrides)
    (then,), _ = composed(CONF, overrides, flatten(theirs))
    assert (now.optimizer, now.measure.batch_pool, now.lr) == ("adam", 8, 0.1)
    assert (then.optimizer, then.measure.batch_pool, then.lr) == ("sgd", 4, 0.1)
    assert composed(CONF, overrides)[0] == [now], "the base's defaults are not kept"


def test_a_worktree_is_gone_whatever_happens_in_it(tmp_path: Path) -> None:
    project = tmp_path / "repository" / "project"
    project.mkdir(parents=True)

    def git(*arguments: str) -> str:
        settings = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", *settings, *arguments], cwd=project, capture_output=True, text=True, check=True)
        return done.stdout

    git("init", "-q", "..")
    for text in ("first", "second"):
        (project / "file").write_text(text)
        git("add", "-A")
        git("commit", "-qm", text)
    (project / "file").write_text("dirty")
    with pytest.raises(KeyboardInterrupt), revision.checked_out("HEAD~1", project) as tree:
        assert (tree / "file").read_text() == "first" and len(git("worktree", "list").splitlines()) == 2
        raise KeyboardInterrupt
    assert not tree.exists() and not tree.parent.parent.exists()
    assert len(git("worktree", "list").splitlines()) == 1
    assert (project / "file").read_text() == "dirty"
    for name in ("nonsense", "--all", "HEAD:project/file"):
        with (
            pytest.raises(ConfigError, match=f"--base {name} is no revision of"),
            revision.checked_out(name, project),
        ):
            pass
    with pytest.raises(ConfigError, match="needs git and a checkout"), revision.checked_out("HEAD", Path("/proc")):
        pass


def test_a_git_that_fails_is_not_taken_for_a_revision_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision, "git", lambda *_: CommandOutput("/a/checkout"))
    monkeypatch.setattr(revision, "_git", lambda *_: CommandOutput(error="fatal: bad object HEAD"))
    with (
        pytest.raises(ConfigError, match="git cannot look up --base HEAD: fatal: bad object HEAD"),
        revision.checked_out("HEAD"),
    ):
        pass
