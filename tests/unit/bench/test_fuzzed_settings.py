"""Settings from anywhere: whatever the value of one is, cells are planned or one line says what is not valid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf.errors import OmegaConfBaseException

from bench.checks import ConfigError, check_sweep
from bench.cli import errors, help
from bench.cli.compose import from_hydra, register
from bench.cli.overrides import check_overrides, name_module
from bench.groups import CONF
from bench.plan.jobs import Jobs
from bench.plan.resolve import plan
from results import quantities
from results.declare import each_setting
from results.quantities import size_bytes
from results.settings import Config
from tests.conftest import CPU_ONLY

FEW = settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=200)

NAMES = [path for path, _, value in each_setting(Config()) if not isinstance(value, dict)] + list(help.GROUPS)
VALUES = ["", "null", "true", "0", "1", "2", "-1", "0.5", "1e400", "1e-400", "nan", "-inf", "9" * 25, "1" * 5000, "a"]
VALUES += [
    "[1,2]",
    "{a:1}",
    "'x y'",
    '"1"',
    "${gpus}",
    "${nope}",
    "${oc.env:HOME}",
    "???",
    "../x",
    "\x00",
    "é",
    "1,2",
    "\\",
]
VALUES += [
    "gloo",
    "fake",
    "nccl",
    "max_batch",
    "lab",
    "1ms",
    "1mbit",
    "2GiB",
    "0B",
    "1e9GiB",
    "9" * 400 + "GiB",
    "samples",
]
VALUES += [
    "strong",
    "bf16",
    "amp_fp16",
    "powersgd",
    "mlp",
    "collectives",
    "torch",
    "module",
    "range(1,3)",
    "glob(*)",
    "'${'",
]


@pytest.fixture(scope="module", autouse=True)
def composer() -> Iterator[None]:
    register(makes_folder=False)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def planned_or_rejected(overrides: list[str]) -> str:
    """The rejection, or nothing where cells were planned to the last detail."""
    try:
        arguments = name_module(overrides)
        check_overrides(arguments)
        config = from_hydra(compose("config", overrides=arguments))
        check_sweep([config])
        for cell in plan([config], CPU_ONLY, cores=2):
            assert cell.id and cell.resolved() and (cell.status or Jobs(cell, Path()).timing())
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        return errors.explain(error)
    return ""


@FEW
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), min_size=1, max_size=2))
def test_any_setting_is_planned_or_rejected_in_a_line(given: list[tuple[str, str]]) -> None:
    rejection = planned_or_rejected([f"{name}={value}" for name, value in given])
    assert len(rejection.splitlines()) <= 1 and len(rejection) < 2000


def test_the_grammar_reaches_both_ends() -> None:
    assert planned_or_rejected(["gpus=2", "stage=3"]) == ""
    assert "memory_limit=99999" in planned_or_rejected(["search=max_batch", f"memory_limit={'9' * 400}GiB"])
    assert "steps=99999" in planned_or_rejected([f"steps={'9' * 25}"])
    assert "gpus=0 is not valid" in planned_or_rejected(["gpus=0"])
    assert "an override cannot be read" in planned_or_rejected([f"lr={'1' * 5000}"])


@MANY
@example("9" * 400 + "GiB")
@given(st.one_of(st.text(max_size=12), st.from_regex(r"[0-9]{0,400}(\.[0-9]{1,3})? ?[kKMGT]?i?B", fullmatch=True)))
def test_a_size_is_a_number_of_bytes_or_rejected(text: str) -> None:
    try:
        size = size_bytes(text)
    except ValueError:
        return
    assert isinstance(size, int) and 1 <= size <= 2**50


@MANY
@given(st.one_of(st.text(max_size=12), st.from_regex(r"[0-9]{1,400}(\.[0-9]{1,3})?([kmg]bit|[um]?s)", fullmatch=True)))
def test_a_rate_and_a_delay_are_in_range_or_rejected(text: str) -> None:
    for read, least, most in ((quantities.bits_per_s, 8e3, 1e11), (quantities.delay_s, 1e-5, 10.0)):
        try:
            number = read(text)
        except ValueError:
            continue
        assert least <= number <= most
