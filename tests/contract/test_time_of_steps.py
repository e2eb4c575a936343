"""Where time goes, in launches whose truth is known: layers sleep, one rank is late by a known time."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.theory.calibrated import CalibratedStep
from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from results.attribution import StepParts
from results.host_settings import Network
from results.settings import Straggler
from tests.conftest import MakeCell
from tests.slow_data import SLOWER_S
from tests.undisturbed import undisturbed

pytestmark = pytest.mark.alone

LAYERS, FORWARD_S, BACKWARD_S = 3, 0.01, 0.02
COMPUTE_S = LAYERS * (FORWARD_S + BACKWARD_S)
LATE = Straggler(rank=1, factor=2.0)
Parts = list[dict[str, float]]
Profile = Callable[..., None]


def layers(parameters_mib: float) -> dict[str, Any]:
    return {
        **{"name": "calibrated", "factory": "workloads.calibrated:Calibrated"},
        **{"layers": LAYERS, "forward_s": FORWARD_S, "backward_s": BACKWARD_S, "parameters_mib": parameters_mib},
    }


@pytest.fixture
def profile(launcher: Launcher, scratch: Path, make_cell: MakeCell) -> Profile:
    """Holds the parts of a step of each rank, medians over steps, to a claim."""

    def run(claim: Callable[[Parts], None], engine: str, workload: dict[str, Any], **settings: Any) -> None:
        cell = make_cell(engine=engine, gpus=2, steps=4, workload=workload, **settings)
        if cell.status:
            pytest.skip(cell.reason)

        def profiled() -> Parts:
            result = launcher.launch(Jobs(cell, scratch).profile())
            assert result.status == "ok", f"{result.status}: {result.reason}\n{result.ends}"
            assert all(rank.straggler_known for rank in result.ranks)
            return [medians(rank.parts) for rank in result.ranks]

        def adds_up_and(ranks: Parts) -> None:
            assert all(rank["gap"] < 0.02 for rank in ranks)
            claim(ranks)

        undisturbed(profiled, adds_up_and)

    return run


def medians(steps: list[StepParts]) -> dict[str, float]:
    """Of the parts in seconds, and of the share of a step by which they do not add up to it."""
    names = [*steps[0].parts_s, "communication", "overlapped", "step"]
    gap = statistics.median(abs(1 - sum(step.parts_s.values()) / step.step_s) for step in steps)
    return {name: statistics.median(getattr(step, f"{name}_s") for step in steps) for name in names} | {"gap": gap}


@pytest.mark.parametrize(("engine", "stage"), [("native", 0), ("native", 3), ("torch", 0), ("torch", 3)])
def test_layers_that_sleep_are_computation(engine: str, stage: int, profile: Profile) -> None:
    def claim(ranks: Parts) -> None:
        for rank in ranks:
            assert COMPUTE_S <= rank["compute"] < rank["step"]
            assert rank["communication"] > 0

    profile(claim, engine, layers(0.25), stage=stage)


def test_nothing_overlaps_where_communication_follows_backward(profile: Profile) -> None:
    def claim(ranks: Parts) -> None:
        for rank in ranks:
            assert rank["overlapped"] < 0.1 * rank["communication"]
            assert rank["exposed"] + rank["straggler"] > 0.8 * rank["communication"]

    profile(claim, "native", layers(8), overlap=False)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_on_a_link_of_known_rate_only_the_last_bucket_is_exposed(engine: str, profile: Profile) -> None:
    """A layer's 256 KiB take 21 ms at 100 Mbit/s; but the last, each overlaps 40 ms of another's backward."""
    workload = layers(0.25) | {"backward_s": 2 * BACKWARD_S}
    layer_s = 2**21 / 100e6

    def claim(ranks: Parts) -> None:
        for rank in ranks:
            assert rank["overlapped"] > 0.4 * rank["communication"]
            assert 0.4 * layer_s < rank["exposed"] < 2 * layer_s

    profile(claim, engine, workload, bucket_mb=0.25, overlap=True, network=Network(kind="lab", rate="100mbit"))


def test_the_overlapped_share_is_that_of_the_closed_form(profile: Profile) -> None:
    """Three buckets of 21 ms at 100 Mbit/s: two overlap 40 ms of backward each, the last nothing.

    DDP's own: gloo says when each of its collectives ran, where a send or receive is seen only until it is waited for.
    """
    workload = layers(0.25) | {"backward_s": 2 * BACKWARD_S}
    expected = CalibratedStep(LAYERS, FORWARD_S, 2 * BACKWARD_S).overlapped_share(2**21 / 100e6)
    assert expected == pytest.approx(2 / 3)

    def claim(ranks: Parts) -> None:
        for rank in ranks:
            assert rank["overlapped"] / rank["communication"] == pytest.approx(expected, abs=0.15)

    profile(claim, "torch", workload, bucket_mb=0.25, overlap=True, network=Network(kind="lab", rate="100mbit"))


def test_what_an_engines_own_thread_sends_is_seen_there(profile: Profile) -> None:
    """A layer's shard takes 42 ms at 100 Mbit/s. Gradients are reduced during 60 ms of backward each, but for the last;
    parameters are gathered after the update, without overlap."""
    workload = layers(1.0) | {"backward_s": 0.06}
    shard_s = 2**22 / 100e6

    def claim(ranks: Parts) -> None:
        for rank in ranks:
            assert rank["overlapped"] / rank["communication"] == pytest.approx(2 / 6, abs=0.1)
            assert rank["exposed"] + rank["straggler"] == pytest.approx(4 * shard_s, rel=0.3)

    network = Network(kind="lab", rate="100mbit")
    profile(claim, "native", workload, stage=1, bucket_mb=1.0, overlap=True, network=network)


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        ("torch", {"compression": "bf16"}),
        ("torch", {"local_steps": 2}),
        ("torch", {"compile": True}),
        ("torch", {"accumulate": 2}),
        ("torch", {"stage": 3, "accumulate": 2}),
        ("torch", {"stage": 3, "precision": "amp_bf16"}),
        ("native", {"accumulate": 2}),
        ("native", {"stage": 2, "accumulate": 2}),
        ("native", {"precision": "amp_bf16"}),
        ("native", {"stage": 3, "precision": "bf16_master"}),
        ("native", {"stage": 3, "compile": True}),
    ],
    ids=str,
)
def test_no_setting_hides_time_from_the_parts(engine: str, settings: dict[str, Any], profile: Profile) -> None:
    """That they add up to the step is in the fixture; what sleeps is computation, whatever is done to it."""

    def claim(ranks: Parts) -> None:
        for rank in ranks:
            assert COMPUTE_S * settings.get("accumulate", 1) <= rank["compute"] < rank["step"]

    profile(claim, engine, layers(0.25), **settings)


@pytest.mark.parametrize(
    ("engine", "stage", "parameters_mib"),
    [("native", 0, 0.25), ("native", 2, 1.0), ("torch", 0, 0.25), ("deepspeed", 0, 0.25)],
)
def test_who_waits_for_a_straggler_waits_its_delay(
    engine: str, stage: int, parameters_mib: float, profile: Profile
) -> None:
    def claim(ranks: Parts) -> None:
        waiting, late = ranks
        assert waiting["straggler"] == pytest.approx(COMPUTE_S, rel=0.4)
        assert late["straggler"] < 0.2 * COMPUTE_S
        assert late["compute"] > 1.9 * COMPUTE_S
        assert waiting["exposed"] < 0.5 * COMPUTE_S

    profile(claim, engine, layers(parameters_mib), stage=stage, straggler=LATE)


@pytest.mark.parametrize(("engine", "stage"), [("native", 0), ("torch", 3)])
def test_who_waits_for_anothers_batch_waits_for_data(engine: str, stage: int, profile: Profile) -> None:
    """Timed steps find their batches ready, so that a slow disk is no straggler there."""
    slow = layers(0.25) | {"name": "slow_data", "factory": "tests.slow_data:SlowData"}

    def claim(ranks: Parts) -> None:
        for rank in ranks:
            assert rank["data"] > 0.8 * SLOWER_S
            assert rank["straggler"] < 0.3 * SLOWER_S

    profile(claim, engine, slow, stage=stage)


def test_whole_periods_are_profiled(make_cell: MakeCell, launcher: Launcher, scratch: Path) -> None:
    cell = make_cell(engine="torch", gpus=2, steps=4, workload=layers(0.25), local_steps=3)
    result = launcher.launch(Jobs(cell, scratch).profile())
    assert [len(rank.parts) for rank in result.ranks] == [6, 6]
    for rank in result.ranks:
        assert sum(part.communication_s > 0 for part in rank.parts) == 2


@pytest.mark.parametrize(("engine", "stage"), [("native", 0), ("native", 3), ("torch", 0), ("torch", 3)])
def test_without_communication_no_rank_waits(
    engine: str, stage: int, make_cell: MakeCell, launcher: Launcher, scratch: Path
) -> None:
    """The rank that is not late then takes its own time; its wait, at least the other's delay, is gone."""
    cell = make_cell(engine=engine, stage=stage, gpus=2, steps=4, workload=layers(0.25), straggler=LATE)
    assert cell.unsilenced() == ""

    def claim(times: list[list[float]]) -> None:
        sent, silent = times
        assert sent[0] - silent[0] > 0.5 * COMPUTE_S
        assert silent[1] - silent[0] > 0.5 * COMPUTE_S > sent[1] - sent[0]

    undisturbed(lambda: [timed(cell, launcher, scratch, silent=on) for on in (False, True)], claim)


def timed(cell: Cell, launcher: Launcher, scratch: Path, *, silent: bool) -> list[float]:
    """The median step of each rank."""
    result = launcher.launch(Jobs(cell, scratch).timing(silent=silent))
    assert result.status == "ok", f"{result.status}: {result.reason}\n{result.ends}"
    samples = [rank.samples for rank in result.ranks]
    return [statistics.median(rank.step_times_s()) for rank in samples]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"gpus": 1}, "one rank"),
        ({"engine": "pipeline", "gpus": 2, "workload": "mlp"}, "engine=pipeline: stages"),
        ({"engine": "parameter_server", "gpus": 2}, "engine=parameter_server: ranks and servers"),
        ({"engine": "native", "gpus": 2, "precision": "amp_fp16"}, "precision=amp_fp16"),
    ],
    ids=str,
)
def test_what_cannot_be_silenced_says_why(settings: dict[str, Any], reason: str, make_cell: MakeCell) -> None:
    assert make_cell(**settings).unsilenced().startswith(reason)
