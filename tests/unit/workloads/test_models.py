"""The models are the published ones: their parameters, shapes, initial weights and operations."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.workload_cases import (
    count,
    load,
    shared,
    tiny_workloads,
)
from workloads import bert, cnn_cifar, gpt, mlp, resnet, vit

pytestmark = pytest.mark.usefixtures("one_thread")


def test_cnn_cifar_has_2_175_626_parameters() -> None:
    assert count(cnn_cifar.network()) == 2_175_626


def test_digits_has_the_parameters_that_its_docstring_says() -> None:
    assert count(shared("digits").build()) == 567_498


@pytest.mark.parametrize(
    ("depth", "images", "parameters"),
    [(18, "cifar10", 11_173_962), (18, "imagenet", 11_689_512), (50, "imagenet", 25_557_032)],
)
def test_resnet_has_its_published_number_of_parameters(depth: int, images: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(resnet.network(depth, images)) == parameters


def test_resnet_on_cifar_keeps_the_resolution_in_its_stem() -> None:
    module = shared("resnet18").build()
    module.get_submodule("layer1").register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    shapes: list[torch.Size] = []
    module(torch.zeros(2, 3, 32, 32))
    assert shapes == [(2, 64, 32, 32)]


@pytest.mark.parametrize(("size", "published"), [("124M", 124_439_808), ("355M", 354_823_168), ("1.5B", 1_557_611_200)])
def test_gpt_has_the_published_number_of_parameters_less_the_qkv_biases(size: str, published: int) -> None:
    shape = gpt.SIZES[size]
    with torch.device("meta"):
        decoder = gpt.Decoder(shape, tie=True)
    assert count(decoder) == published - shape.layers * 3 * shape.width


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_an_untied_head_has_a_weight_of_its_own(name: str) -> None:
    tied, untied = shared(name).build(), load(name, tie=False).build()
    assert count(untied) - count(tied) == 256 * 64
    assert tied.get_parameter("head.weight") is tied.get_parameter("tokens.weight")


def test_gpt_starts_from_gpt2s_initial_weights() -> None:
    parameters = dict(load("gpt", sequence_length=512).build().named_parameters())
    residual = 0.02 / (2 * 2) ** 0.5
    for name, parameter in parameters.items():
        if parameter.dim() == 1:
            assert torch.all(parameter == (0.0 if name.endswith("bias") else 1.0))
        else:
            assert parameter.std().item() == pytest.approx(residual if "project" in name else 0.02, rel=0.05)


def test_gpt_does_not_see_later_tokens() -> None:
    module = shared("gpt").build()
    tokens, _ = shared("gpt").batch([0])
    changed = tokens.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % 256
    with torch.no_grad():
        before, after = module(tokens), module(changed)
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 40:], after[:, 40:])


@pytest.mark.parametrize(("name", "shapes"), [("gpt", [(3, 16), (3, 16)]), ("bert", [(3, 16), (3, 2), (3, 2)])])
def test_tokens_are_counted_and_the_context_can_be_set(name: str, shapes: list[tuple[int, int]]) -> None:
    workload = load(name, sequence_length=16)
    assert (workload.info.unit, workload.info.units_per_sample) == ("token", 16)
    assert [tuple(part.shape) for part in workload.batch(range(3))] == shapes
    assert workload.build().get_parameter("positions.weight").shape == (16, 64)


def test_bert_base_has_the_published_parameters_less_qkv_biases_and_segments() -> None:
    with torch.device("meta"):
        encoder = bert.Encoder(bert.SIZES["base"], tie=True)
    assert count(encoder) == 109_514_298 - 12 * 3 * 768 - 2 * 768


def test_bert_sees_tokens_on_both_sides() -> None:
    module = shared("bert").build()
    tokens, masked, _ = shared("bert").batch([0])
    middle = masked[:, 4:5]
    with torch.no_grad():
        before = module(tokens, middle)
        for place in (0, 63):
            changed = tokens.clone()
            changed[:, place] = (changed[:, place] + 1) % 255
            assert not torch.equal(before, module(changed, middle))


def test_vit_b_16_has_its_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert count(vit.network("b_16")) == 86_567_656


def test_vit_computes_what_torchvisions_does() -> None:
    from torchvision.models import VisionTransformer  # type: ignore[import-untyped]

    workload, module = shared("vit_b_16"), shared("vit_b_16").build()
    theirs = VisionTransformer(32, 4, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=256, num_classes=10)
    theirs.load_state_dict(module.state_dict())
    batch = workload.batch(range(4))
    losses = [workload.loss(network, batch) for network in (module, theirs)]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        loss.backward()
    for (name, ours), reference in zip(module.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, reference.grad, msg=name)


def test_vit_on_imagenet_takes_its_shape() -> None:
    images, _ = load("vit_b_16", size="b_16").batch([0])
    assert images.shape == (1, 3, 224, 224)


def test_speech_gives_a_class_for_every_four_frames() -> None:
    features, classes = shared("speech").batch(range(3))
    assert (shared("speech").info.unit, shared("speech").info.units_per_sample) == ("frame", 64)
    assert features.shape == (3, 64, 80) and classes.shape == (3, 16)
    assert shared("speech").build()(features).shape == (3, 16, 32)


def test_nearly_all_of_a_recommender_is_in_its_tables() -> None:
    workload = load("recommender", tables=3, rows=500, width=8)
    module = workload.build()
    assert count(module.get_submodule("tables")) == 3 * 500 * 8
    assert count(module.get_submodule("bottom")) == 13 * 64 + 64 + 64 * 8 + 8
    assert count(module.get_submodule("top")) == (8 + 6) * 64 + 64 + 64 + 1  # 6 pairs of 3 rows and the dense features
    assert count(shared("recommender").build().get_submodule("tables")) > 0.9 * count(shared("recommender").build())


@pytest.mark.parametrize(
    ("inputs", "outputs", "bias", "parameters"), [(1, 1, True, 2), (10, 10, False, 100), (3, 7, True, 28)]
)
def test_linear_is_one_layer(inputs: int, outputs: int, bias: bool, parameters: int) -> None:
    workload = load("linear", inputs=inputs, outputs=outputs, bias=bias)
    module = workload.build()
    assert isinstance(module, nn.Linear) and count(module) == parameters
    assert [tuple(part.shape) for part in workload.batch(range(4))] == [(4, inputs), (4, outputs)]


@pytest.mark.parametrize(
    ("name", "size", "tokens"), [("gpt", "124M", 1024), ("bert", "base", 512), ("vit_b_16", "b_16", 197)]
)
def test_a_large_transformer_takes_six_operations_for_each_weight_and_token(name: str, size: str, tokens: int) -> None:
    workload = load(name, size=size)
    with torch.device("meta"):
        module = workload.build()
    head = 30522 * 768 + 768 * 768 if name == "bert" else 0  # at the masked positions only
    matrices = count(module) * tokens - head * (tokens - 77)
    with FlopCounterMode(display=False) as counter:
        workload.loss(module, tuple(part.to("meta") for part in workload.batch([0]))).backward()
    assert 0.98 < counter.get_total_flops() / (6 * matrices) < 1.2  # positions take none; attention is on top


@tiny_workloads
def test_no_gradient_is_rounding_noise(name: str) -> None:
    """Adam makes a full update of any gradient: one that is zero but for rounding would move the weight at random."""
    workload, module = shared(name), shared(name).build()
    batch = workload.batch(range(8))
    workload.loss(module, batch).backward()
    exact = shared(name).build().double()
    workload.loss(exact, tuple(part.double() if part.is_floating_point() else part for part in batch)).backward()
    for (parameter, weight), expected in zip(module.named_parameters(), exact.parameters(), strict=True):
        assert weight.grad is not None and expected.grad is not None, f"{parameter} is not used"
        off = (weight.grad.double() - expected.grad).abs() > 0.5 * expected.grad.abs()
        assert off.double().mean() < 0.01, parameter


def test_the_zero_recipes_mlp_has_twenty_layers_of_2000() -> None:
    with torch.device("meta"):
        module = mlp.network(depth=20, width=2000, bias=True)
    assert count(module) == 80_040_000
    assert sum(isinstance(layer, nn.Linear) for layer in module.modules()) == 20


def test_gradients_of_a_deep_mlp_neither_vanish_nor_explode() -> None:
    workload = load("mlp", depth=20, width=64)
    module = workload.build()
    workload.loss(module, workload.batch(range(64))).backward()
    norms = [float(parameter.grad.norm()) for parameter in module.parameters() if parameter.grad is not None]
    assert max(norms) < 100 * min(norms)
