"""Settings: what is rejected, and how the rejection reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from bench.checks import ConfigError, check, check_engine_options, check_sweep
from bench.cli import help, overrides
from bench.cli.compose import register, run_folder
from bench.groups import CONF
from results.declare import each_setting, info
from results.host_settings import Network
from results.settings import Config, Straggler


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage=5"], "stage=5 is not valid; valid: 0, 1, 2, 3"),
        (["-m", "stage=0,7"], "stage=7 is not valid; valid: 0, 1, 2, 3"),
        (["gpus=0"], "gpus=0 is not valid; valid: a whole number of at least 1"),
        (["gpus=1.5"], "gpus=1.5 is not valid"),
        (["gpus=null"], "gpus=null is not valid"),
        (["bukcet_mb=3"], "bukcet_mb is not a setting; did you mean bucket_mb?"),
        (["zzz=3"], "zzz is not a setting; no setting has a name like it (python -m bench --help explains each)"),
        (["bucket_mb=0"], "bucket_mb=0 is not valid; valid: a number above 0, null"),
        (["bucket_mb=inf"], "bucket_mb=inf is not valid"),
        (["overlap=maybe"], "overlap='maybe' is not valid; valid: true, false, null"),
        (["workload=nope"], "workload=nope is unknown; valid: bert, calibrated, cnn_cifar, collectives, "),
        (["-m", "engine=torch,nope"], "engine=nope is unknown; valid: "),
        (["precision=fp8"], "precision=fp8 is not valid; valid: fp32, amp_bf16"),
        (["workload=mlp", "workload.dpeth=3"], "workload.dpeth is not an option of workload=mlp; valid: bias, depth"),
        (["engine.foo=1"], "engine.foo is not an option of engine="),
        (["measure.parity_step=1"], "measure.parity_step is not a setting; did you mean measure.parity_steps?"),
        (["stage=[1"], "'stage=[1' cannot be read as an override"),
        (["repeats=true"], "repeats=true is not valid"),
        (["network=wifi"], "network=wifi is unknown; valid: lab, none"),
        (["network.rate=1gigabit"], "network.rate=1gigabit is not valid; valid: a rate from 8kbit to 100gbit, such as"),
        (["-m", "network.rate=1gbit,0mbit"], "network.rate=0mbit is not valid"),
        (["network.rate=100"], "network.rate=100 is not valid"),
        (["network.delay=1"], "network.delay=1 is not valid; valid: a time from 10us to 10s, such as 1ms, null"),
        (["network.hosts=0"], "network.hosts=0 is not valid"),
        (["memory_limit=2"], "memory_limit=2 is not valid; valid: a size such as 2GiB or 500MB, null"),
        (["experiment=null"], "experiment=None is unknown; valid: "),
        (["search=min_batch"], "search=min_batch is not valid; valid: none, max_batch"),
    ],
)
def test_a_bad_override_is_rejected_with_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as rejection:
        overrides.check_overrides(arguments)
    assert str(rejection.value).startswith(message)
    assert "\n" not in str(rejection.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "stage=0,1,2,3", "gpus=1,2,4,8"],
        ["workload=mlp", "workload.depth=20", "bucket_mb=null", "overlap=false", "lr=1"],
        ["-m", "gpus=range(1,4)"],
        ["engine=torch", "tracking=none", "tracking.uri=null", "engine.gradient_as_bucket_view=false"],
        ["-m", "network=lab", "network.rate=100mbit,1.5gbit,null", "network.delay=1ms", "network.hosts=2"],
        ["hydra.searchpath=[file:///elsewhere]", "workload=mine", "workload.size=3"],
    ],
)
def test_a_good_override_passes(arguments: list[str]) -> None:
    overrides.check_overrides(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage=0,1"], "stage=0,1 is a sweep; add -m"),
        (["-m", "stage=range(0,0)"], "stage=range(0,0) has no values"),
        (["-m", "experiment=smoke,exact"], "experiment=smoke,exact cannot be swept"),
        (["-m", "--cfg", "job"], "only one is valid of --multirun, --cfg"),
        (["--resolve"], "--resolve is valid only with --cfg or --help"),
    ],
)
def test_what_hydra_would_not_run_as_it_reads_is_rejected(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as rejection:
        overrides.check_mode(arguments)
    assert str(rejection.value).startswith(message)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "stage=0,1"],
        ["hydra.mode=MULTIRUN", "stage=0,1"],
        ["experiment=smoke", "stage=0,1"],
        ["--cfg", "job", "--resolve", "stage=1"],
        ["bucket_mb='1,2'"],
    ],
)
def test_what_hydra_runs_as_it_reads_is_not(arguments: list[str]) -> None:
    overrides.check_mode(arguments)


def test_a_factor_of_no_straggler_is_rejected(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"straggler\.factor=5 needs straggler\.rank; with null, valid: 2"):
        check_sweep([make_config(straggler=Straggler(factor=5))])
    check_sweep([make_config(straggler=Straggler(rank, factor=5)) for rank in (None, 0)])


def test_a_share_that_is_not_whole_is_rejected_by_its_name(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"batch_size=10 .* gpus=4 .*; valid: a multiple of 4"):
        check(make_config(batch_size=10, gpus=4, scaling="strong"))
    with pytest.raises(ConfigError, match=r"accumulate=3; valid: a multiple of 3"):
        check(make_config(batch_size=10, accumulate=3))
    check(make_config(batch_size=12, gpus=2, scaling="strong", accumulate=3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 9}, "target_loss=1 looks at the loss of 10 steps; steps=9 is not valid; valid: 10 or more"),
        ({"measure": {"profile": True}}, "target_loss=1 is not valid with measure.profile=true"),
        ({"search": "max_batch", "memory_limit": "1GiB"}, "target_loss=1 is not valid with search=max_batch"),
        ({"data_skew": "samples"}, "target_loss=1 is not valid with data_skew=samples"),
        ({"workload": "collectives", "engine": {"name": "-", "package": "-"}}, "target_loss=1 needs a workload that"),
    ],
)
def test_a_target_loss_needs_whole_trainings(
    settings: dict[str, Any], message: str, make_config: Callable[..., Config]
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        check(make_config(target_loss=1.0, **{"steps": 10, **settings}))
    check(make_config(target_loss=1.0, steps=10))


def test_a_link_without_the_lab_is_rejected(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"^network.rate=1gbit needs network=lab; with network=none, valid: null$"):
        check(make_config(network=Network(rate="1gbit")))
    check(make_config(network=Network("lab", rate="1gbit")))


def test_an_engine_has_no_other_options_than_its_file(make_config: Callable[..., Config], tmp_path: Path) -> None:
    config = make_config(engine="native")
    check_engine_options(config)
    config.engine["foo"] = 1
    with pytest.raises(ConfigError, match=r"^engine\.foo is not an option of engine=native; valid: in_flight$"):
        check_engine_options(config)
    config.engine |= {"name": "mine", "package": "my.engine"}
    check_engine_options(config)
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "mine.yaml").write_text("name: mine\npackage: my.engine\n")
    with pytest.raises(ConfigError, match=r"^engine\.foo is not an option of engine=mine; valid: none$"):
        check_engine_options(config, tmp_path)


def test_what_belongs_to_the_sweep_cannot_be_swept(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="repeats cannot be swept"):
        check_sweep([make_config(repeats=1), make_config(repeats=2)])
    check_sweep([make_config(stage=0), make_config(stage=1)])


def test_help_explains_every_setting() -> None:
    table = help.settings_table()
    for path, spec, value in each_setting(Config()):
        assert isinstance(value, dict) or f"  {path}=" in table
        assert len(info(spec).help) > 10, path


def test_resume_takes_the_sweep_that_was_written_to_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for age_s, name in enumerate(["2026-02-01_00-00-00", "exact-2026-01-01", "2026-03-01_00-00-00"]):
        records = tmp_path / "results" / "runs" / name / "records"
        records.mkdir(parents=True)
        os.utime(records, (1e9 - age_s, 1e9 - age_s))
    assert run_folder(True) == "2026-02-01_00-00-00"
    assert run_folder(False) not in {"2026-02-01_00-00-00", "exact-2026-01-01", "2026-03-01_00-00-00"}


def test_a_single_run_is_where_a_sweep_would_be() -> None:
    register(makes_folder=False)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = compose("config", overrides=["hydra.sweep.dir=mine"], return_hydra_config=True).hydra
    assert hydra.run.dir == hydra.sweep.dir == "mine"
