"""Image classifiers by the names that timm and torchvision give them."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from bench.job import LoadJob, WorkloadSpec
from bench.worker.batches import load
from workloads.base import WorkloadError
from workloads.vision import AUXILIARY, Timm, Torchvision


def test_a_model_of_timm_trains_on_its_own_or_a_given_size() -> None:
    pytest.importorskip("timm")
    own = Timm(seed=0, data_dir=None, model="test_vit")
    assert own.batch([0])[0].shape[2] == 160, "the size that it was made for"
    workload = Timm(seed=0, data_dir=None, model="test_vit", input_size=[3, 32, 32], classes=10)
    module = workload.build()
    workload.loss(module, workload.batch(range(2))).backward()
    assert all(weight.grad is not None for weight in module.parameters())
    assert len(workload.units(module)) > 1


def test_further_outputs_of_a_classifier_have_a_loss_too() -> None:
    options = {"input_size": [3, 64, 64], "classes": 10, "kwargs": {"init_weights": False, "dropout_aux": 0.0}}
    workload = Torchvision(seed=0, data_dir=None, model="googlenet", **options)
    module, (images, labels) = workload.build().train(), workload.batch(range(2))
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    losses = [F.cross_entropy(output, labels) for output in module(images)]
    expected = losses[0] + AUXILIARY * sum(losses[1:])
    assert float(workload.loss(module, (images, labels)).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_misspelt_name_has_one_line() -> None:
    with pytest.raises(WorkloadError, match="resnet81 is no classifier of torchvision; did you mean resnet"):
        Torchvision(seed=0, data_dir=None, model="resnet81")


def test_a_size_that_the_model_rejects_is_named_with_the_models_words_and_what_to_do() -> None:
    options = {"model": "vit_b_16", "input_size": [3, 65, 65]}
    job = LoadJob(
        workload=WorkloadSpec("workloads.vision:Torchvision", 0, None, options),
        world_size=1,
        threads=1,
        deterministic=False,
        timeout_s=60,
    )
    message = (
        "torchvision: vit_b_16 with workload.input_size=[3, 65, 65] cannot be built: Input shape indivisible by patch "
        "size!; valid: values that the model takes; null: its own"
    )
    with pytest.raises(WorkloadError) as caught:
        load(job)
    assert str(caught.value) == message
