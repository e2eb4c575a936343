"""A launch under background load: the instrument measures it and names the processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.launch.launcher import Launcher
from bench.measure.verdicts import disturbances
from bench.plan.cell import Cell
from results.launches import Launch
from results.record import Record
from tests.conftest import MakeCell
from tests.undisturbed import undisturbed

pytestmark = pytest.mark.alone


@pytest.fixture
def burners(launcher: Launcher) -> Iterator[None]:
    """A process of somebody else on every core."""
    assert launcher.machine  # warm
    started = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(len(os.sched_getaffinity(0)))]
    yield
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("burners")
def test_a_process_that_loads_the_cpus_during_a_launch_is_measured_and_named(
    launcher: Launcher, make_cell: MakeCell, timing_job: Callable[..., Any]
) -> None:
    """Others again may take so much that neither gets its share, nor the burners a name."""
    cell: Cell = make_cell(engine="native", workload="mlp", gpus=2, batch_size=512, steps=160)

    def launched() -> tuple[dict[str, float], dict[str, float]]:
        result = launcher.launch(timing_job(cell))
        assert result.status == "ok", result.reason
        assert set(result.ranks[1].interference.conditions) <= {"wire_sent_bytes"}  # the machine is read once
        return result.ranks[0].interference.conditions, result.ranks[0].interference.background_processes

    def claim(seen_and_others: tuple[dict[str, float], dict[str, float]]) -> None:
        seen, others = seen_and_others
        assert others.get("sh", 0.0) > 0.2 * seen["window_s"] and seen["own_cpu_s"] > 0.2 * seen["window_s"]
        # All together had at most what the CPUs have, up to the ticks by which time is charged.
        assert seen["own_cpu_s"] + seen["background_cpu_s"] < 1.2 * seen["cpus"] * seen["window_s"] + 0.1
        reason = disturbances(
            Record("", "", {}, {}, {}, launches=[Launch(0, "", {}, [], conditions=seen, background_processes=others)])
        )
        assert reason["background_load"].startswith("in 1 of 1 launches; at worst others took ")
        assert "(sh" in reason["background_load"] or ", sh" in reason["background_load"]

    undisturbed(launched, claim)
