"""A DataLoader's settings: what they resolve to, what has no effect, and what is rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.checks import ConfigError, check, check_sweep
from bench.job import LoaderSettings
from bench.plan.resolve import plan
from results.settings import Config, Loader
from tests.conftest import CPU_ONLY, MakeCell
from tests.unit.bench.plan.test_cell import EIGHT_GPUS


def test_a_pool_has_no_loader_and_a_loader_its_defaults(make_cell: MakeCell) -> None:
    assert make_cell().loader is None
    assert make_cell(data="loader").loader == LoaderSettings(workers=2, prefetch=2, pin_memory=False)


def test_a_loader_on_a_gpu_pins_its_memory(make_config: Callable[..., Config]) -> None:
    (cell,) = plan([make_config(data="loader", gpus=2)], EIGHT_GPUS, cores=16)
    assert cell.loader and cell.loader.pin_memory


def test_settings_without_effect_make_no_other_configuration(make_config: Callable[..., Config]) -> None:
    choices = [(data, workers) for data in ("pool", "loader") for workers in (0, 1)]
    configs = [make_config(data=data, loader=Loader(workers=workers)) for data, workers in choices]
    assert [(cell.config.data, cell.config.loader.workers) for cell in plan(configs, CPU_ONLY, cores=2)] == [
        ("pool", Loader.workers),
        ("loader", 0),
        ("loader", 1),
    ]
    pools = [make_config(data="loader", measure={"batch_pool": size}) for size in (2, 4)]
    assert len(plan(pools, CPU_ONLY, cores=2)) == 1


def test_workers_leave_threads_to_ranks_and_count_as_users_of_cores(make_config: Callable[..., Config]) -> None:
    def planned(cores: int, threads: int | None = None) -> list[tuple[int, bool]]:
        configs = [make_config(gpus=2, data=data, threads=threads) for data in ("pool", "loader")]
        return [(cell.threads, cell.oversubscribed(CPU_ONLY)) for cell in plan(configs, CPU_ONLY, cores=cores)]

    assert planned(8) == [(2, False), (2, False)]
    assert planned(4) == [(1, False), (1, True)]
    assert planned(8, threads=3) == [(3, False), (3, True)]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"data_skew": "labels"}, "has no data_skew=labels"),
        ({"loader": Loader(pin_memory=True)}, "pin_memory=true has no effect on device=cpu"),
        ({"loader": Loader(workers=0, prefetch=3)}, "loader.prefetch=3 needs loader.workers"),
    ],
)
def test_what_a_loader_cannot_honor_is_unsupported(settings: dict[str, Any], reason: str, make_cell: MakeCell) -> None:
    cell = make_cell(data="loader", **settings)
    assert cell.status == "unsupported" and reason in cell.reason


def test_a_loader_is_rejected_where_its_lead_or_its_steps_are_not_timed(make_config: Callable[..., Config]) -> None:
    for settings in ({"target_loss": 0.5, "steps": 20}, {"search": "max_batch"}):
        with pytest.raises(ConfigError, match="data=loader is not valid with"):
            check(make_config(data="loader", **settings))


def test_a_setting_without_effect_in_the_whole_sweep_is_rejected(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"loader.workers=3 needs data=loader"):
        check_sweep([make_config(loader=Loader(workers=3))])
    timed = {"name": "calibrated", "factory": "workloads.calibrated:Calibrated", "read_s": 0.01}
    with pytest.raises(ConfigError, match=r"workload.read_s=0.01 needs data=loader"):
        check_sweep([make_config(workload=timed)])
    check_sweep([make_config(data=data, workload=timed) for data in ("pool", "loader")])
    with pytest.raises(ConfigError, match=r"measure.batch_pool=3 needs data=pool"):
        check_sweep([make_config(data="loader", measure={"batch_pool": 3})])
    check_sweep([make_config(data=data, loader=Loader(workers=3)) for data in ("pool", "loader")])
