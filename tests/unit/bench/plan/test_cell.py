"""Cells: how a request is resolved on a machine, and what makes two cells the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pytest

from analysis.metrics.scaling import is_ranked
from bench.checks import ConfigError
from bench.measure.verdicts import verdicts
from bench.network import lab as lab_network
from bench.network.link import Link
from bench.plan.jobs import Jobs, reference_key
from bench.plan.resolve import plan
from results.host_settings import Network
from results.launches import Launch
from results.record import Record
from results.settings import Config, Straggler
from tests.conftest import CPU_ONLY
from tests.fakes import cell as fake_cell
from tests.fakes import launch as fake_launch

EIGHT_GPUS = dataclasses.replace(CPU_ONLY, cuda_devices=8, nccl="2.30.7")


def test_without_a_gpu_ranks_are_processes_over_gloo(make_config: Callable[..., Config]) -> None:
    cell = plan([make_config(gpus=8)], CPU_ONLY, cores=2)[0]
    assert (cell.device, cell.backend, cell.status) == ("cpu", "gloo", None)
    assert cell.oversubscribed(CPU_ONLY)


def test_with_gpus_ranks_use_them_over_nccl(make_config: Callable[..., Config]) -> None:
    cells = plan([make_config(gpus=8), make_config(gpus=16)], EIGHT_GPUS, cores=64)
    assert [(cell.device, cell.backend) for cell in cells] == [("cuda", "nccl"), ("cuda", "gloo")]
    assert [cell.oversubscribed(EIGHT_GPUS) for cell in cells] == [False, True]


def test_a_rank_has_the_same_threads_at_every_world_size(make_config: Callable[..., Config]) -> None:
    cells = plan([make_config(gpus=n, threads=None) for n in (1, 2, 4)], CPU_ONLY, cores=16)
    assert [cell.threads for cell in cells] == [4, 4, 4]


def test_nccl_without_a_gpu_for_each_rank_is_rejected_by_its_name(make_config: Callable[..., Config]) -> None:
    cell = plan([make_config(gpus=16, backend="nccl")], EIGHT_GPUS, cores=64)[0]
    assert cell.status == "unsupported"
    assert "backend=nccl needs a GPU for each of gpus=16 ranks" in cell.reason


def test_ranks_that_share_a_gpu_over_gloo_have_no_profile(make_config: Callable[..., Config]) -> None:
    cells = plan([make_config(gpus=n, backend="gloo", device="cuda") for n in (1, 16)], EIGHT_GPUS, cores=64)
    assert [cell.unprofiled().partition(" ")[0] for cell in cells] == ["", "backend=gloo"]


def test_a_device_that_is_not_there_is_rejected(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="device=cuda is not possible here"):
        plan([make_config(device="cuda")], CPU_ONLY, cores=2)


def test_equal_requests_are_one_cell_and_other_settings_another(make_config: Callable[..., Config]) -> None:
    same = [make_config(), make_config(repeats=9), make_config(resume=True, timeout_s=1.0)]
    assert len(plan(same, CPU_ONLY, cores=2)) == 1
    other = [make_config(), make_config(lr=1.0), make_config(bucket_mb=1.0), make_config(seed=1)]
    assert len({cell.id for cell in plan(other, CPU_ONLY, cores=2)}) == 4


def test_stages_share_a_reference_and_world_sizes_do_not(make_config: Callable[..., Config], tmp_path: Path) -> None:
    cells = plan([make_config(stage=stage, gpus=gpus) for stage in (0, 3) for gpus in (1, 2)], CPU_ONLY, cores=2)
    assert len({reference_key(Jobs(cell, tmp_path).reference()) for cell in cells}) == 2


def test_strong_scaling_shares_the_batch_and_weak_scaling_repeats_it(make_config: Callable[..., Config]) -> None:
    strong, weak = plan([make_config(gpus=4, scaling=scaling) for scaling in ("strong", "weak")], CPU_ONLY, cores=2)
    assert (strong.rank_batch, strong.global_batch) == (2, 8)
    assert (weak.rank_batch, weak.global_batch) == (8, 32)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"stage": 2, "bucket_mb": 1.0}, "engine=torch at stage=2 has no bucket_mb"),
        ({"stage": 0, "overlap": False}, "engine=torch at stage=0 cannot set overlap=false"),
        ({"stage": 1, "precision": "bf16_master"}, "engine=torch at stage=1 has no precision=bf16_master"),
    ],
)
def test_what_the_torch_engine_cannot_honour_is_rejected_by_its_name(
    make_config: Callable[..., Config], settings: dict[str, object], reason: str
) -> None:
    cell = plan([make_config(engine="torch", **settings)], CPU_ONLY, cores=2)[0]
    assert (cell.status, cell.reason[: len(reason)]) == ("unsupported", reason)


def test_an_engine_that_cannot_be_imported_is_rejected_by_its_name(make_config: Callable[..., Config]) -> None:
    config = make_config()
    config.engine["package"] = "nowhere.engine"
    cell = plan([config], CPU_ONLY, cores=2)[0]
    assert (cell.status, "nowhere.engine cannot be imported" in cell.reason) == ("unsupported", True)


def test_verdicts_flag_what_a_reader_must_know(make_config: Callable[..., Config]) -> None:
    plain = dataclasses.asdict(make_config())
    record = Record("id", "sweep", plain, {}, {}, launches=[Launch(0, "", {}, [])])
    assert verdicts(record, oversubscribed=True) == ["oversubscribed", "parity_unchecked", "too_few_launches"]
    record.launches *= 6
    assert verdicts(record, oversubscribed=False) == ["parity_unchecked"]


def test_verdicts_flag_what_was_done_on_purpose(make_config: Callable[..., Config]) -> None:
    slow = dataclasses.asdict(make_config(gpus=2, straggler=Straggler(rank=1), data_skew="labels"))
    record = Record("id", "sweep", slow, {"outside_parity": "stale gradients"}, {})
    assert verdicts(record, oversubscribed=False) == ["outside_parity", "straggler", "skewed_data"]
    lab = dataclasses.asdict(make_config(gpus=2, network=Network("lab", "1gbit")))
    assert verdicts(Record("id", "sweep", lab, {}, {}), oversubscribed=False) == ["shaped_network"]


def test_one_launch_that_diverged_is_enough_for_the_cell_to_be_no_ones_baseline(
    make_config: Callable[..., Config],
) -> None:
    record = fake_cell(0, 1, [fake_launch(at, [[0.01] * 4], loss=nan if at == 1 else 0.5) for at in range(3)])
    record.config = dataclasses.asdict(make_config())
    assert is_ranked(record)
    record.verdicts = verdicts(record, oversubscribed=False)
    assert "loss_not_finite" in record.verdicts and not is_ranked(record)


@pytest.fixture
def lab_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_network, "obstacle", lambda link: None)


@pytest.mark.usefixtures("lab_is_possible")
def test_a_lab_is_in_the_identity_the_job_and_the_record(make_config: Callable[..., Config], tmp_path: Path) -> None:
    config = make_config(gpus=4, network=Network("lab", "100mbit", "2ms", hosts=2))
    cell, other = plan([config, make_config(gpus=4)], CPU_ONLY, cores=2)
    assert cell.status is None and cell.id != other.id
    assert Jobs(cell, tmp_path).timing().network == Jobs(cell, tmp_path).check().network == Link(1e8, 0.002, 2)
    assert Jobs(cell, tmp_path).reference().network is None is Jobs(other, tmp_path).timing().network
    facts = {"bits_per_s": 1e8, "delay_s": 0.002, "hosts": 2, "host_of_rank": [0, 0, 1, 1]}
    assert (cell.resolved()["network"], other.resolved()["network"]) == (facts, None)


@pytest.mark.usefixtures("lab_is_possible")
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"gpus": 2, "network": Network("lab", hosts=3)}, "network.hosts=3 is more than gpus=2; valid: 1 to 2, null"),
        ({"backend": "nccl", "device": "cuda"}, "network=lab cannot hold backend=nccl to its links. Valid: gloo"),
    ],
)
def test_a_lab_that_would_not_hold_all_traffic_is_rejected(
    make_config: Callable[..., Config], settings: dict[str, Any], reason: str
) -> None:
    machine = dataclasses.replace(CPU_ONLY, cuda_devices=4, nccl="2.27.5")
    cell = plan([make_config(engine="torch", **({"network": Network("lab")} | settings))], machine, cores=2)[0]
    assert (cell.status, cell.reason) == ("unsupported", reason)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("tc", "network=lab needs tc, from iproute2"), ("root", "network=lab needs root"), ("tun", "network.delay needs")],
)
def test_a_machine_that_cannot_make_a_lab_says_what_it_needs(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str, reason: str
) -> None:
    rights = tmp_path / "status"
    rights.write_text(f"CapEff:\t{'0' * 16 if missing == 'root' else '000001ffffffffff'}\n")
    monkeypatch.setattr(lab_network, "STATUS", rights)
    monkeypatch.setattr(lab_network, "TUN", str(tmp_path / "tun"))
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == missing else f"/sbin/{tool}")
    cell = plan([make_config(gpus=2, network=Network("lab", delay="1ms"))], CPU_ONLY, cores=2)[0]
    assert (cell.status, cell.reason[: len(reason)]) == ("unsupported", reason)
