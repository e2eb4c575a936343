"""A person's own model: from ``workload=module:path.to:factory`` to a workload."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from torch import nn

from bench import OWN, OwnPackages
from bench.checks import ConfigError
from bench.cli import compose, errors, overrides
from bench.groups import CONF
from results.settings import Config
from workloads import Workload, WorkloadError, mlp, module

# The command line


def composed(arguments: list[str]) -> Config:
    compose.register(makes_folder=False)
    arguments = overrides.name_module(arguments)
    overrides.check_overrides(arguments)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return compose.from_hydra(hydra.compose("config", arguments))


def test_a_model_of_ones_own_is_named_on_the_command_line() -> None:
    assert overrides.name_module(["-m", "stage=0,1", "workload=module:my_models.net:Net", "gpus=2"]) == [
        "-m",
        "stage=0,1",
        "workload=module",
        "workload.path=my_models.net:Net",
        "gpus=2",
    ]
    others = ["-m", "workload=digits,mlp", "engine=module:no", "workload.path=a:b"]
    assert overrides.name_module(others) == others


@pytest.mark.parametrize(
    ("model", "name"),
    [("llama", "hf_llama"), ("models/my-llama/config.json", "hf_my_llama"), ("models/my.llama", "hf_my.llama")],
)
def test_a_model_of_a_library_is_named_on_the_command_line(model: str, name: str) -> None:
    config = composed([f"workload=hf:{model}", "workload.config={hidden_size: 32}", "workload.sequence_length=64"])
    expected = {"name": name, "model": model, "config": {"hidden_size": 32}, "sequence_length": 64}
    assert {key: config.workload[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("workload=timm:", "workload=timm: names no model; valid: workload=timm:NAME"),
        ("workload=hf:llama,hf:bert", "workload=hf:llama,hf:bert cannot be swept; valid: workload=hf workload.model="),
        ("workload=module:", "workload.path=null is not valid; valid: module:attribute, as in my_models.net:Net"),
        ("workload=module:my_models", "workload.path=my_models is not valid"),
        ("workload=module:my-models:Net", "workload.path=my-models:Net is not valid"),
        ("workload=module:my_models:Net:more", "workload.path=my_models:Net:more is not valid"),
        ("workload=digits,module:my_models:Net", "workload=digits,module:my_models:Net cannot be swept; valid: one"),
        ("workload=module:a:b,module:a:c", "workload=module:a:b,module:a:c cannot be swept; valid: one"),
    ],
)
def test_what_names_no_model_is_rejected_with_one_line(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as rejection:
        overrides.name_module([argument])
    assert str(rejection.value).startswith(message) and "\n" not in str(rejection.value)


def test_a_cell_has_the_name_of_the_model() -> None:
    config = composed(["workload=module:my_models.net:Net", "workload.kwargs={width: 3}", "workload.input=[5]"])
    assert config.workload | {"factory": ""} == {
        "name": "Net",
        "factory": "",
        "path": "my_models.net:Net",
        "kwargs": {"width": 3},
        "input": [5],
        **{"sequence_length": None, "input_kind": "float"},
        "vocabulary": 256,
        "loss": "cross_entropy",
        "loss_weights": None,
        "classes": 10,
        "units": None,
    }


def test_a_model_without_a_path_is_rejected() -> None:
    with pytest.raises(Exception, match=r"workload\.path=null is not valid") as rejection:
        composed(["workload=module"])
    assert "\n" not in errors.explain(rejection.value)


# The workload


def load(path: str, seed: int = 0, **options: Any) -> Workload:
    return module.load(seed=seed, data_dir=None, path=path, **options)


def equal(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


OWN_MODELS = """
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn
from workloads.mlp import MLP


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(3))
        self.few = nn.Sequential(nn.Linear(width, 2), nn.Linear(2, width))
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        hidden = self.stem(images).mean(dim=(2, 3))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(self.few(hidden))


def picky(width):
    raise ValueError("no width")


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.last(self.relu(self.first(inputs)))


class Language(nn.Sequential):
    def __init__(self, vocabulary):
        super().__init__(nn.Embedding(vocabulary, 4), nn.Linear(4, vocabulary))


class Loss(Flat):
    def forward(self, inputs):
        return super().forward(inputs).square().mean()


def workload(seed, data_dir, depth):
    return MLP(seed=seed, data_dir=data_dir, depth=depth, width=8)


def pair():
    return Flat(), None


built = Flat()


class nested:
    class Deep:
        @staticmethod
        def small():
            return Flat()


class Pair(Flat):
    def forward(self, inputs):
        outputs = super().forward(inputs)
        return outputs, outputs.square().mean()


class Result(Pair):
    def forward(self, inputs):
        logits, loss = super().forward(inputs)
        return SimpleNamespace(loss=loss, logits=logits)


class Mapped(Pair):
    def forward(self, inputs):
        logits, loss = super().forward(inputs)
        return {"loss": loss, "logits": logits}


class Labelled(Flat):
    def forward(self, inputs, labels=None):
        logits = super().forward(inputs)
        return SimpleNamespace(loss=None if labels is None else F.cross_entropy(logits, labels), logits=logits)


class Unlabelled(Labelled):
    def forward(self, inputs):
        return super().forward(inputs)


class Lazy(nn.Sequential):
    def __init__(self):
        super().__init__(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Dropout(0.5), nn.LazyLinear(3))
"""


@pytest.fixture
def own_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own_models.py").write_text(OWN_MODELS)
    (tmp_path / "own_broken.py").write_text("import torch\nraise NameError('nothing here')\n")
    (tmp_path / "own_script.py").write_text("import argparse\nargparse.ArgumentParser().error('--data is missing')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_models", raising=False)


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(
    ("attribute", "options", "outputs"),
    [
        ("Net", {}, (4, 10)),
        ("Net", {"kwargs": {"width": 16}, "input": [3, 9, 7], "classes": 4}, (4, 10)),
        ("Flat", {"input": [5], "loss": "mse"}, (4, 3)),
        (
            "Language",
            {"kwargs": {"vocabulary": 30}, "input": [6], "input_kind": "tokens", "vocabulary": 30},
            (4, 6, 30),
        ),
        ("Loss", {"input": [5], "loss": "output"}, ()),
    ],
)
def test_a_module_of_ones_own_is_fed_and_trains(
    attribute: str, options: dict[str, Any], outputs: tuple[int, ...]
) -> None:
    workload = load(path=f"own_models:{attribute}", **options)
    built, batch = workload.build(), workload.batch(range(4))
    assert workload.info.name == attribute
    assert built(batch[0]).shape == outputs
    assert equal(built, workload.build())
    workload.loss(built, batch).backward()
    assert all(parameter.grad is not None for parameter in built.parameters())


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(("attribute", "shape"), [("Loss", "()"), ("Flat", "(12,)")])
def test_an_output_that_has_no_row_a_sample_is_rejected_by_its_name(attribute: str, shape: str) -> None:
    workload = load(path=f"own_models:{attribute}", input=[5], loss="mse")
    module = workload.build() if attribute == "Loss" else nn.Sequential(workload.build(), nn.Flatten(0))
    message = f"returned the shape {shape}; valid for workload.loss=mse: (4, ...)"
    with pytest.raises(WorkloadError, match=re.escape(message)):
        workload.loss(module, workload.batch(range(4)))


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(
    ("attribute", "options", "outputs"),
    [
        ("nested.Deep.small", {"input": [5], "classes": 3}, (4, 3)),
        ("Pair", {"input": [5], "loss": "output"}, None),
        ("Result", {"input": [5], "loss": "output"}, None),
        ("Mapped", {"input": [5], "loss": "output"}, None),
        ("Mapped", {"input": [5], "classes": 3}, None),
        ("Labelled", {"input": [5], "classes": 3, "loss": "output"}, None),
        ("Lazy", {"input": [5], "classes": 3}, (4, 3)),
    ],
)
def test_a_loss_is_taken_from_a_tuple_an_object_or_a_dict(
    attribute: str, options: dict[str, Any], outputs: tuple[int, ...] | None
) -> None:
    workload = load(path=f"own_models:{attribute}", **options)
    built, batch = workload.build(), workload.batch(range(4))
    assert outputs is None or built(batch[0]).shape == outputs
    assert equal(built, workload.build()) and built.training
    loss = workload.loss(built, batch)
    loss.backward()
    assert loss.shape == () and all(parameter.grad is not None for parameter in built.parameters())


@pytest.mark.usefixtures("own_models")
def test_a_model_that_needs_labels_for_its_loss_is_rejected_by_its_name() -> None:
    workload = load(path="own_models:Unlabelled", input=[5], loss="output")
    with pytest.raises(WorkloadError, match=r"returned loss=None; valid .*: a scalar, a tuple with one scalar"):
        workload.loss(workload.build(), workload.batch(range(4)))


@pytest.mark.usefixtures("own_models")
def test_a_workload_of_ones_own_is_used_as_it_is() -> None:
    workload = load(seed=5, path="own_models:workload", kwargs={"depth": 3})
    expected = mlp.MLP(seed=5, data_dir=None, depth=3, width=8)
    assert type(workload) is mlp.MLP
    assert equal(workload.build(), expected.build())
    with pytest.raises(WorkloadError, match=r"has its own data and loss; valid: input, .* as they are in"):
        load(path="own_models:workload", kwargs={"depth": 3}, classes=3)


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("own_nothing:Net", {}, "cannot import own_nothing"),
        ("own_broken:Net", {}, "cannot import own_broken .NameError: nothing here"),
        ("own_script:Net", {}, "cannot import own_script .SystemExit: 2"),
        ("own_models:Nett", {}, "own_models has no callable 'Nett'; did you mean 'Net'. valid: Net, picky, Flat, "),
        ("own_models:nested.Deep.smal", {}, "own_models.nested.Deep has no callable 'smal'; did you mean 'small'"),
        ("own_models:pair", {}, "returned a tuple; valid: an nn.Module, or an object with info, build,"),
        ("own_models:built", {}, "is a built module; valid: a class or function"),
        ("own_models:Net", {"kwargs": {"widht": 3}}, r"workload.kwargs=.*unexpected.*'widht'.; it takes .width=8"),
        ("own_models:Language", {}, "missing a required argument: 'vocabulary'"),
        (
            "own_models:picky",
            {"kwargs": {"width": 0}},
            r"cannot be built: no width \(own_models.py, line \d+\); valid",
        ),
    ],
)
def test_what_is_no_model_of_ones_own_is_rejected_by_its_name(path: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkloadError, match=message) as caught:
        load(path=path, **options)
    assert str(caught.value).startswith(f"workload.path={path}") and "\n" not in str(caught.value)


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(
    ("attribute", "options", "message"),
    [
        ("Flat", {"input": [5]}, r"returned the shape \(4, 3\); valid for workload.loss=cross_entropy: \(4, 10\)"),
        ("Flat", {"input": [5], "loss": "output"}, r"returned the shape \(4, 3\); valid .*: a scalar"),
    ],
)
def test_an_output_that_does_not_suit_the_loss_is_rejected(
    attribute: str, options: dict[str, Any], message: str
) -> None:
    workload = load(path=f"own_models:{attribute}", **options)
    with pytest.raises(WorkloadError, match=message):
        workload.loss(workload.build(), workload.batch(range(4)))


def test_a_folder_with_the_name_of_a_package_of_the_suite_does_not_hide_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "workloads").mkdir()
    (tmp_path / "workloads" / "__init__.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in OWN:
        spec = OwnPackages().find_spec(name, None)
        assert spec is not None and str(spec.origin).startswith(str(CONF.parent))
    assert any(isinstance(finder, OwnPackages) for finder in sys.meta_path)
    with pytest.raises(WorkloadError, match=rf"The folder {tmp_path}/workloads is hidden by the package workloads in "):
        load(path="workloads.net:Net")
