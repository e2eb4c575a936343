"""Factories and their options: what conf/ lists is what they take, and anything else is rejected by name."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import workloads
from tests.workload_cases import (
    CONF,
    LIBRARIES,
    NAMES,
    every_workload,
    load,
    name_of,
    settings,
)
from workloads import WorkloadError
from workloads.base import check_choice, check_count

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", [*NAMES, *LIBRARIES])
def test_a_configuration_lists_exactly_its_factorys_options(name: str) -> None:
    options = settings(name)
    module, attribute = options["factory"].split(":")
    taken = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    assert set(options) - {"name", "factory"} == set(taken) - {"seed", "data_dir"}
    defaults = {option: taken[option].default for option in set(options) - {"name", "factory"}}
    if name == "resnet50":
        defaults |= {"depth": 50, "data": "imagenet"}
    if name == "module":
        defaults |= {"path": None, "input": list(defaults["input"])}
    assert {option: options[option] for option in defaults} == defaults


@every_workload
def test_a_configuration_names_its_workload_and_a_batch_size(name: str) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    document = OmegaConf.create(text)
    assert set(document) == {"batch_size", "workload"} and document.batch_size >= 1
    if name != "module":  # has the name of what it is given
        assert document.workload.name == name == name_of(name)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("workloads.digits", "valid: module:attribute"),
        ("workloads.digits:", "valid: module:attribute"),
        ("workloads.nothing:Digits", "cannot import workloads.nothing"),
        ("workloads.digits:Digit", "has no callable 'Digit'; did you mean 'Digits'. valid: Digits$"),
        ("workloads.digits:network", "does not take 'seed'"),
    ],
)
def test_a_factory_that_cannot_be_used_is_rejected_by_its_name(factory: str, message: str) -> None:
    with pytest.raises(WorkloadError, match=message) as caught:
        workloads.load(factory, seed=0, data_dir=None, options={})
    assert factory in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_option_is_rejected_with_the_valid_ones() -> None:
    with pytest.raises(WorkloadError, match=r"Digits has no option 'widht'; valid: width, depth$"):
        load("digits", widht=3)
    with pytest.raises(WorkloadError, match="has no option 'seed'"):
        workloads.load("workloads.cnn_cifar:CnnCifar", seed=0, data_dir=None, options={"seed": 1})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"width": 0}, "digits: width=0 is not valid; valid: a whole number of at least 1"),
        ("digits", {"depth": "three"}, "digits: depth='three' is not valid"),
        ("mlp", {"depth": 2.0}, "mlp: depth=2.0 is not valid"),
        ("mlp", {"bias": 1}, "mlp: bias=1 is not valid; valid: True, False"),
        ("gpt", {"size": "125M"}, "gpt: size='125M' is not valid; valid: tiny, 124M, 355M, 1.5B"),
        ("gpt", {"sequence_length": 0}, "gpt: sequence_length=0 is not valid"),
        ("bert", {"size": "124M"}, "bert: size='124M' is not valid; valid: tiny, base"),
        ("speech", {"size": "large"}, "speech: size='large' is not valid; valid: tiny, base"),
        ("vit_b_16", {"size": "b_32"}, "vit: size='b_32' is not valid; valid: b_16, tiny"),
        ("linear", {"inputs": 0}, "linear: inputs=0 is not valid"),
        ("recommender", {"rows": 1.5}, "recommender: rows=1.5 is not valid"),
        ("module", {"loss": "nll"}, "module: loss='nll' is not valid; valid: cross_entropy, mse, output"),
        ("module", {"input": [3, 0]}, "module: input=0 is not valid"),
        ("module", {"input": 3}, "module: input=3 is not valid; valid: a list of sizes"),
        ("module", {"input": []}, r"module: input=\(\) is not valid; valid: a list of sizes"),
        ("module", {"kwargs": [3]}, r"module: kwargs=\[3\] is not valid; valid: \{NAME: VALUE, ...\}, null"),
        ("module", {"input_kind": "tokens"}, r"input=\[3, 32, 32\] .* is not valid; valid: input=\[LENGTH\]"),
        ("resnet18", {"depth": 34}, "resnet: depth=34 is not valid; valid: 18, 50"),
        ("resnet18", {"data": "cifar"}, "resnet: data='cifar' is not valid; valid: cifar10, imagenet"),
    ],
)
def test_an_options_value_is_rejected_with_what_is_valid(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        load(name, **options)


def test_true_is_not_a_number_and_one_is_not_true() -> None:
    with pytest.raises(WorkloadError):
        check_count("mine", "depth", True)
    with pytest.raises(WorkloadError):
        check_choice("mine", "tie", 1, (True, False))


USERS_MODULE = """
class Mine:
    def __init__(self, *, seed, data_dir, scale, **more):
        self.info, self.arguments = None, (seed, data_dir, scale, more)
    build = units = batch = loss = None

class Strict:
    def __init__(self, *, seed, data_dir, scale):
        pass
"""


def test_a_users_own_factory_is_loaded_with_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "users_model.py").write_text(USERS_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    mine: Any = workloads.load("users_model:Mine", seed=3, data_dir="/data", options={"scale": 2, "extra": 1})
    assert mine.arguments == (3, "/data", 2, {"extra": 1})
    with pytest.raises(WorkloadError, match="needs the option 'scale'"):
        workloads.load("users_model:Strict", seed=3, data_dir=None, options={})
    with pytest.raises(WorkloadError, match="what it made has no 'info'"):
        workloads.load("users_model:Strict", seed=3, data_dir=None, options={"scale": 1})
