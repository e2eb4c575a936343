"""The main sweep fits the machine: enough launches, no crowded ranks, GPUs where there are some."""

from __future__ import annotations

import functools

import pytest

from bench.cli import main_sweep
from bench.groups import CONF
from bench.measure.machine.torch_build import Machine
from bench.plan.cell import Cell
from bench.plan.resolve import plan
from bench.regress.__main__ import composed
from results.launches import ENOUGH_LAUNCHES
from tests.conftest import CPU_ONLY


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A driver with so many GPUs, all visible."""
    monkeypatch.setattr(main_sweep.nvml, "states", lambda: [object()] * count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@functools.cache
def main_cells(cores: int) -> list[Cell]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main_sweep, "usable_cores", lambda: float(cores))
        return plan(composed(CONF, ["experiment=default"])[0], CPU_ONLY, cores)


def test_the_main_sweep_on_two_cores_has_16_configurations() -> None:
    cells = main_cells(2)
    assert len({(cell.config.engine["name"], cell.config.stage, cell.config.gpus) for cell in cells}) == 16
    assert {cell.config.stage for cell in cells} == {0, 1, 2, 3}


@pytest.mark.parametrize("cores", [1, 2, *(pytest.param(cores, marks=pytest.mark.exhaustive) for cores in (3, 8, 64))])
def test_the_main_sweep_on_cpus_causes_no_warning_by_its_own_settings(cores: int) -> None:
    for cell in main_cells(cores):
        assert cell.status is None
        assert not cell.oversubscribed(CPU_ONLY)
        assert cell.config.repeats >= ENOUGH_LAUNCHES
        assert cell.config.measure.parity_steps
        assert cell.config.workload["name"] == "digits"  # real data


@pytest.mark.parametrize(
    ("count", "sizes"), [(6, {1, 2, 4, 6}), pytest.param(8, {1, 2, 4, 8}, marks=pytest.mark.exhaustive)]
)
def test_the_main_sweep_on_gpus_has_all_stages_at_growing_world_sizes(
    monkeypatch: pytest.MonkeyPatch, count: int, sizes: set[int]
) -> None:
    gpus(monkeypatch, count)
    (argument,) = main_sweep.for_this_machine(["experiment=default"])
    assert argument == "experiment=gpu"
    machine = Machine(torch="2.15.0", cuda_devices=count, nccl="2.29.7", warm_up_s=0.0)
    cells = plan(composed(CONF, [argument])[0], machine, cores=16)
    assert {(cell.config.stage, cell.config.gpus) for cell in cells} == {(s, n) for s in range(4) for n in sizes}
    for cell in cells:
        assert (cell.status, cell.device, cell.backend) == (None, "cuda", "nccl")
        assert (cell.config.workload["name"], cell.config.workload["size"]) == ("gpt", "124M")
        assert cell.config.precision == "amp_bf16"
        assert cell.config.budget_s and cell.config.repeats >= ENOUGH_LAUNCHES
        assert not cell.oversubscribed(machine)


def test_a_person_may_keep_the_main_sweep_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    arguments = ["experiment=default", "device=cpu"]
    assert main_sweep.for_this_machine(arguments) == arguments


def test_another_sweep_and_a_machine_without_gpus_keep_their_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus(monkeypatch, 2)
    assert main_sweep.for_this_machine(["-m", "stage=0,1"]) == ["-m", "stage=0,1"]
    gpus(monkeypatch, 0)
    assert main_sweep.for_this_machine(["experiment=default"]) == ["experiment=default"]
    assert capsys.readouterr().err == ""


def test_the_choice_of_gpus_is_announced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gpus(monkeypatch, 8)
    main_sweep.for_this_machine(["experiment=default"])
    assert capsys.readouterr().err == "8 GPUs visible: experiment=gpu (device=cpu runs the sweep on CPUs)\n"
