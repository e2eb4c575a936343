"""What tests share: one warm fork server for all, and cells made without Hydra."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import engines
from bench.groups import CONF, options
from bench.job import LaunchResult
from bench.launch.launcher import Launcher
from bench.launch.local import LocalLauncher
from bench.measure.machine.launch_conditions import together
from bench.measure.machine.torch_build import Machine
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from bench.plan.resolve import plan
from bench.rank_results import CheckResult
from results.model import Model
from results.parity import Noise, Parity
from results.record import Record
from results.settings import Config, Measure

MakeCell = Callable[..., Cell]
Judged = Callable[[Cell], Parity]
MODELS: dict[str, Model] = {}
"""By reference, the model that it trained."""
NOISES: dict[str, Noise] = {}
"""By reference and how its sums are rounded; scratch is the session's."""
RunCheck = Callable[[Cell], list[CheckResult]]
AsRecord = Callable[[Cell, list[CheckResult]], Record]
WRAPPERS = ("fsdp1", "accelerate", "fabric")
"""Engines that are much like others: make test runs their own files, make exhaustive the tests of all engines."""
CPU_ONLY = Machine(torch="2.15.0", cuda_devices=0, nccl=None, warm_up_s=0.0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests:
        import torch

        if not torch.cuda.is_available():
            for item in gpu_tests:
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


def each_engine(names: Iterable[str]) -> list[Any]:
    """Engines as parameters of a test, those of ``WRAPPERS`` for make exhaustive only."""
    return [pytest.param(name, marks=pytest.mark.exhaustive if name in WRAPPERS else ()) for name in names]


def group(name: str, choice: str) -> dict[str, Any]:
    """The content of a config group's file."""
    document: dict[str, Any] = yaml.safe_load((CONF / name / f"{choice}.yaml").read_text())
    settings: dict[str, Any] = document.get(name, document)
    return settings


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """Configs of a tiny cell, of which parity alone is checked unless ``measure`` asks for more."""

    def make(
        engine: str | dict[str, Any] = "torch", workload: str | dict[str, Any] = "digits", **settings: Any
    ) -> Config:
        quick = {"parity_steps": 3, "memory": "search" in settings, "collectives": False, "ceiling": False}
        measure = Measure(**(quick | settings.pop("measure", {})))
        engine = group("engine", engine) if isinstance(engine, str) else engine
        chosen = group("workload", workload) if isinstance(workload, str) else workload
        defaults: dict[str, Any] = {
            "batch_size": 8,
            "steps": 2,
            "warmup": 1,
            "repeats": 1,
            "timeout_s": 300.0,
            "threads": 1,
        }
        return Config(engine=engine, workload=chosen, measure=measure, **(defaults | settings))

    return make


@pytest.fixture
def make_cell(make_config: Callable[..., Config]) -> MakeCell:
    def make(**settings: Any) -> Cell:
        return plan([make_config(**settings)], CPU_ONLY, cores=2)[0]

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes on one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    packages = [group("engine", name)["package"] for name in options("engine")]
    with LocalLauncher(engines.preload(*packages)) as warm:
        yield warm


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps references, which cells with the same training share."""
    return tmp_path_factory.mktemp("references")


@pytest.fixture
def run_check(launcher: Launcher, scratch: Path) -> RunCheck:
    """Runs a cell's check launch and returns every rank's result; fails with the last output of the ranks."""

    def run(cell: Cell) -> list[CheckResult]:
        if cell.status == "unavailable":
            pytest.skip(cell.reason)
        assert cell.status is None, cell.reason
        return launched(launcher, cell, "check", scratch, may_reject=True).ranks

    return run


@pytest.fixture
def judged(launcher: Launcher, scratch: Path, run_check: RunCheck) -> Judged:
    """Runs a cell's check and judges its parity as a sweep would."""

    def judge(cell: Cell) -> Parity:
        parity = run_check(cell)[0].parity
        assert parity
        if parity.passed or parity.unjudged:
            return parity
        job = Jobs(cell, scratch).noise()
        key = f"{job.reference} {job.spec.compression} {job.partial_sums}"
        if key not in NOISES:
            NOISES[key] = launched(launcher, cell, "noise", scratch).ranks[0].noise
        return parity.judged(NOISES[key])

    return judge


def launched(
    launcher: Launcher, cell: Cell, purpose: Any, scratch: Path, *, may_reject: bool = False
) -> LaunchResult[Any]:
    """A launch that ended well, a check's after its reference. ``may_reject``: skips what only ranks could reject."""
    job = getattr(Jobs(cell, scratch), purpose)()
    if purpose == "check":
        model = reference_model(launcher, cell, scratch, may_reject=may_reject)
        job = dataclasses.replace(job, first_use=model.step.first_use)
    return ended_well(launcher.launch(job), may_reject)


def reference_model(launcher: Launcher, cell: Cell, scratch: Path, *, may_reject: bool = False) -> Model:
    """The model of a cell, from its reference, which cells with the same training share."""
    job = Jobs(cell, scratch).reference()
    if job.reference not in MODELS:
        MODELS[job.reference] = ended_well(launcher.launch(job), may_reject).ranks[0].model
    return MODELS[job.reference]


def ended_well(result: LaunchResult[Any], may_reject: bool) -> LaunchResult[Any]:
    if may_reject and result.status == "unsupported" and "engine=" in result.reason:
        pytest.skip(result.reason)
    assert result.status == "ok", f"{result.status}: {result.reason}\n{result.ends}"
    return result


@pytest.fixture
def timing_job(scratch: Path) -> Callable[..., Any]:
    """A timing job of a cell, with changes."""

    def make(cell: Cell, **changes: Any) -> Any:
        return dataclasses.replace(Jobs(cell, scratch).timing(), **changes)

    return make


@pytest.fixture
def as_record(launcher: Launcher, scratch: Path) -> AsRecord:
    """A checked cell's record as a sweep would begin it: the model, and what took effect."""

    def make(cell: Cell, ranks: list[CheckResult]) -> Record:
        record = Record(cell.id, "", dataclasses.asdict(cell.config), cell.resolved(), {})
        record.model = reference_model(launcher, cell, scratch)
        record.resolved["engine"] = ranks[0].description
        return record

    return make


def planned(make_config: Callable[..., Config], options: dict[str, Any], **settings: Any) -> Cell:
    """A cell whose engine has these options."""
    config = make_config(**settings)
    config.engine = config.engine | options
    return plan([config], CPU_ONLY, cores=2)[0]


def wire_bytes(result: LaunchResult[Any], steps: int) -> float:
    """What ranks of a timed launch sent in a step, over the ranks, by the counters of their interfaces."""
    assert result.status == "ok", result
    counted = together(rank.interference.conditions for rank in result.ranks)
    if "wire_sent_bytes" not in counted:
        pytest.skip("no counters of interfaces here")
    return counted["wire_sent_bytes"] / steps / len(result.ranks)


def assert_parity(ranks: list[CheckResult], tolerance: float | None = None) -> None:
    """By tensor in fp32, as the suite judges; over all parameters with wider tolerances, whose noise is by tensor."""
    from bench.worker.parity import TOLERANCE

    parity = ranks[0].parity
    assert parity
    limit = parity.tolerance if tolerance is None else tolerance
    assert parity.loss_error <= limit and parity.weights_error <= limit, parity
    if limit <= TOLERANCE["fp32"]:
        assert parity.error <= limit, parity
