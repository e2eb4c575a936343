"""What is killed costs its launch and nothing else: whole records, a folder that can be resumed, and no process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psutil
import pytest

from bench.job import LaunchResult
from bench.launch.launcher import Launcher
from bench.network import lab, link
from tests.broken_sweep import BENCH, Broken, ranks_below
from tests.conftest import MakeCell, planned
from tests.undisturbed import undisturbed

SLOW_WRITES = "import os, time; fsync = os.fsync; os.fsync = lambda fd: (time.sleep(1), fsync(fd)); "
STOPS_IN = """
import importlib, sys, time

def stop_in(module, name):
    module = importlib.import_module(module)
    def stop(*_, **__):
        open("stopped", "w").close()
        time.sleep(600)
    setattr(module, name, stop)
"""


def stopped(sweep: Broken) -> bool:
    """Whether the program has come to where ``STOPS_IN`` stops it."""
    return (sweep.home / "stopped").exists()


def begun(sweep: Broken) -> bool:
    """Whether there is anything to resume; the fork server has children before that, while it warms up."""
    return (sweep.folder / "records").is_dir()


MOMENTS: dict[str, tuple[str, Callable[[Broken], object]]] = {
    "before the first record": ("", lambda sweep: begun(sweep) and sweep.ranks()),
    "in mid-sweep": ("", lambda sweep: sweep.launches() >= 2 and sweep.ranks()),
    "while a record is written": (SLOW_WRITES, lambda sweep: list((sweep.folder / "records").glob(".*.partial"))),
    "while the report is drawn": (STOPS_IN + "stop_in('analysis.figures.catalogue', 'draw')\n", stopped),
    "while MLflow is logged": (STOPS_IN + "stop_in('analysis.advice.alpha_beta', 'metrics')\n", stopped),
}
OFTEN = ("while a record is written",)


@pytest.mark.parametrize(
    "moment", [pytest.param(moment, marks=() if moment in OFTEN else pytest.mark.exhaustive) for moment in MOMENTS]
)
def test_a_sweep_that_is_killed_continues_where_it_stopped(sweep: Broken, moment: str) -> None:
    program, condition = MOMENTS[moment]
    database = f"sqlite:///{sweep.home}/mlflow.db"
    tracking = (f"tracking.uri={database}",) if "MLflow" in moment else ("tracking=none",)
    arguments = ("stage=0,1", "repeats=3", *tracking)
    process = sweep.start(*arguments, program=program + BENCH)
    sweep.wait_for(lambda: bool(condition(sweep)))
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while sweep.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sweep.left() == []
    kept = {cell: record.launches for cell, record in sweep.records().items()}

    code, output = sweep.run(*arguments, "resume=true")
    assert code == 0, output
    sweep.assert_all_ended(cells=2, repeats=3)
    now = sweep.records()
    assert all(now[cell].launches[: len(launches)] == launches for cell, launches in kept.items())
    if "MLflow" in moment:
        assert "not logged" not in output


def test_a_killed_rank_and_a_killed_fork_server_cost_a_launch_each(sweep: Broken) -> None:
    arguments = ("stage=0,1,2", "repeats=4")
    process = sweep.start(*arguments)
    sweep.wait_for(lambda: sweep.launches() >= 1 and bool(sweep.ranks()))
    for victims in (sweep.ranks, sweep.servers):
        before = [cell for cell, record in sweep.records().items() if record.status == "failed"]
        with contextlib.suppress(psutil.NoSuchProcess):
            sweep.wait_for(lambda victims=victims: bool(sweep.ranks() and victims()))  # type: ignore[misc]
            victims()[0].kill()
        sweep.wait_for(lambda before=before: len(_failed(sweep)) > len(before))  # type: ignore[misc]
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "killed by signal 9" in errors and "the fork server ended with code -9" in errors
    assert sorted(record.status for record in sweep.records().values()) == ["failed", "failed", "ok"]
    assert sweep.left() == []
    kept = {cell: record.launches for cell, record in sweep.records().items()}

    code, output = sweep.run(*arguments, "resume=true")
    assert code == 0, output
    sweep.assert_all_ended(cells=3, repeats=4)
    assert all(sweep.records()[cell].launches[: len(launches)] == launches for cell, launches in kept.items())


def _failed(sweep: Broken) -> list[str]:
    return [cell for cell, record in sweep.records().items() if record.status == "failed"]


def test_a_killed_parameter_server_fails_its_launch_and_is_named(
    make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., object]
) -> None:
    cell = make_cell(engine="parameter_server", gpus=2, steps=5000)
    result = killed_while_it_runs(launcher, timing_job(cell), lambda processes: processes[-1], at_least=3)
    assert (result.status, result.reason) == ("failed", "rank 2: killed by signal 9 (SIGKILL)")
    assert ranks_below(psutil.Process(launcher._process.pid)) == []


@pytest.mark.alone
def test_a_killed_relay_fails_its_launch_at_once(
    make_config: Callable[..., object], launcher: Launcher, timing_job: Callable[..., object]
) -> None:
    settings = {"gpus": 2, "steps": 5000, "network": _lab()}
    if obstacle := lab.obstacle(link.Link(None, 0.001, 2)):
        pytest.skip(obstacle)
    job = timing_job(planned(make_config, {}, engine="torch", **settings))  # type: ignore[arg-type]

    def took_s() -> float:
        started = time.monotonic()
        result = killed_while_it_runs(
            launcher, job, lambda ours: next(p for p in ours if "relay.py" in " ".join(p.cmdline())), at_least=3
        )
        ended = time.monotonic()
        assert (result.status, result.reason) == ("failed", "network=lab: the process between its hosts ended")
        assert ranks_below(psutil.Process(launcher._process.pid)) == []
        return ended - started

    def claim(took_s: float) -> None:
        assert took_s < 50  # of a timeout of much more, which the ranks would have waited for

    undisturbed(took_s, claim)


def _lab() -> object:
    from results.host_settings import Network

    return Network(kind="lab", delay="1ms")


def killed_while_it_runs(
    launcher: Launcher,
    job: object,
    choose: Callable[[list[psutil.Process]], psutil.Process],
    at_least: int,
) -> LaunchResult:
    """Launches the job and kills one of its processes once they all run."""
    import threading

    server = psutil.Process(launcher._process.pid)

    def kill() -> None:
        deadline = time.monotonic() + 60
        while len(ranks_below(server)) < at_least and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(1)
        choose(sorted(ranks_below(server), key=lambda process: process.pid)).kill()

    killer = threading.Thread(target=kill)
    killer.start()
    result = launcher.launch(job)  # type: ignore[arg-type]
    killer.join()
    return result
