"""Claims about workloads: same weights, same samples, whatever the rank and the world size."""

from __future__ import annotations

import copy
import hashlib
import inspect
import pickle
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import workloads
from workloads import Workload, WorkloadError, bert, cnn_cifar, data, gpt, mlp, resnet, vit
from workloads.base import Batch, check_choice, check_count, seeded

CONF = Path(__file__).resolve().parents[2] / "conf" / "workload"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "collectives")  # has no model
SMALL: dict[str, dict[str, Any]] = {"vit_b_16": {"size": "tiny"}, "module": {"path": "workloads.cnn_cifar:network"}}
"""Options without which a workload is too large to run here, or is none."""
TINY = [name for name in NAMES if not name.startswith("resnet")]

every_workload = pytest.mark.parametrize("name", NAMES)
tiny_workloads = pytest.mark.parametrize("name", TINY)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(name: str) -> dict[str, Any]:
    document = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(document, dict)
    found: dict[str, Any] = document["workload"]
    return dict(found)


def load(name: str, seed: int = 0, data_dir: str | None = None, **options: Any) -> Workload:
    found = settings(name) | SMALL.get(name, {}) | options
    del found["name"]
    return workloads.load(found.pop("factory"), seed=seed, data_dir=data_dir, options=found)


@cache
def shared(name: str) -> Workload:
    return load(name)


def name_of(name: str) -> str:
    """What a workload calls itself where nothing but its configuration is set."""
    found = settings(name)
    del found["name"]
    return workloads.load(found.pop("factory"), seed=0, data_dir=None, options=found).info.name


def weights(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


def same(left: Batch, right: Batch) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Weights


@every_workload
def test_weights_are_the_same_each_time_and_for_each_instance(name: str) -> None:
    reference = weights(shared(name).build())
    for module in (shared(name).build(), load(name).build()):
        found = weights(module)
        assert list(found) == list(reference)
        assert all(torch.equal(found[key], reference[key]) for key in reference)


@tiny_workloads
def test_another_seed_gives_other_weights_and_samples(name: str) -> None:
    other = load(name, seed=1)
    assert not same(tuple(shared(name).build().parameters()), tuple(other.build().parameters()))
    assert not same(shared(name).batch(range(4)), other.batch(range(4)))


@every_workload
def test_the_global_generators_are_left_alone(name: str) -> None:
    torch.manual_seed(7)
    before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
    load(name).build()
    shared(name).batch(range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_before)


@every_workload
def test_a_model_is_built_on_the_cpu_in_fp32_for_training(name: str) -> None:
    module = shared(name).build()
    assert module.training
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("cpu", torch.float32)}


@every_workload
def test_units_are_in_the_module_and_do_not_nest(name: str) -> None:
    module = shared(name).build()
    units = shared(name).units(module)
    assert len(units) > 1 or name == "linear"
    modules = {id(part) for part in module.modules()} - {id(module)}
    inside = [{id(part) for part in unit.modules()} for unit in units]
    assert all(parts <= modules for parts in inside)
    assert sum(map(len, inside)) == len(set().union(*inside))
    owned = [id(parameter) for unit in units for parameter in unit.parameters()]
    assert len(owned) == len(set(owned))


@every_workload
def test_units_are_in_the_order_that_forward_visits_them(name: str) -> None:
    module = shared(name).build()
    units = shared(name).units(module)
    visited: list[nn.Module] = []
    for unit in units:
        unit.register_forward_pre_hook(lambda part, _: visited.append(part))
    with torch.no_grad():
        shared(name).loss(module, shared(name).batch(range(2)))
    assert [id(unit) for unit in visited] == [id(unit) for unit in units]


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
    parameters = dict(load("gpt", context=512).build().named_parameters())
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
    workload = load(name, context=16)
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
    for (parameter, found), expected in zip(module.named_parameters(), exact.parameters(), strict=True):
        assert found.grad is not None and expected.grad is not None, f"{parameter} is not used"
        off = (found.grad.double() - expected.grad).abs() > 0.5 * expected.grad.abs()
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


# Samples


@every_workload
def test_a_batch_is_a_pure_function_of_global_indices(name: str) -> None:
    indices = [0, 3, 1, 3, 58]
    before = shared(name).batch(indices)
    shared(name).batch(range(4))
    assert same(before, shared(name).batch(indices))
    assert same(before, load(name).batch(indices))


@every_workload
def test_the_shards_of_a_batch_make_the_whole_batch(name: str) -> None:
    whole = shared(name).batch(range(8, 20))
    for ranks in (2, 3):
        shards = [
            shared(name).batch(range(20)[8 + rank * 12 // ranks : 8 + (rank + 1) * 12 // ranks])
            for rank in range(ranks)
        ]
        assert same(whole, tuple(torch.cat(parts) for parts in zip(*shards, strict=True)))


@every_workload
def test_indices_wrap_at_the_number_of_samples(name: str) -> None:
    samples = shared(name).info.data.samples
    assert same(shared(name).batch([0, 5]), shared(name).batch([samples, 3 * samples + 5]))
    assert not same(shared(name).batch([0]), shared(name).batch([samples - 1]))


@every_workload
def test_writing_to_a_batch_does_not_change_the_next_one(name: str) -> None:
    before = shared(name).batch([1, 2])
    expected = copy.deepcopy(before)
    for part in before:
        part.zero_()
    assert same(expected, shared(name).batch([1, 2]))


@every_workload
@pytest.mark.parametrize("per_rank", [4, 32, 64, 128, 256])
def test_no_two_ranks_draw_the_same_samples(name: str, per_rank: int) -> None:
    samples = shared(name).info.data.samples
    assert all((rank * per_rank) % samples != 0 for rank in range(1, 9))


def test_data_and_weights_are_drawn_apart() -> None:
    inputs, _ = data.vectors(5, width=8).batch(range(data.SAMPLES))
    assert not torch.equal(inputs, torch.randn(data.SAMPLES, 8, generator=seeded(5)))
    assert torch.equal(inputs, torch.randn(data.SAMPLES, 8, generator=seeded(5 ^ 0x64617461)))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "digits"])
def test_without_a_folder_the_data_is_synthetic_and_says_so(name: str) -> None:
    assert shared(name).info.data.synthetic
    assert "synthetic" in shared(name).info.data.description


def test_targets_are_the_inputs_shifted_by_one() -> None:
    inputs, targets = data.tokens(0, vocabulary=50, length=12).batch(range(5))
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert inputs.min() >= 0 and inputs.max() < 50


def test_a_token_has_at_most_four_successors() -> None:
    inputs, targets = data.tokens(0, vocabulary=50, length=64).batch(range(data.SAMPLES))
    pairs = {(int(a), int(b)) for a, b in zip(inputs.flatten(), targets.flatten(), strict=True)}
    assert max(sum(first == token for first, _ in pairs) for token in range(50)) <= 4


def test_masked_tokens_are_equally_many_in_each_sample() -> None:
    inputs, positions, targets = data.masked_tokens(0, vocabulary=50, length=20, masked=3).batch(range(data.SAMPLES))
    assert torch.equal((inputs == 49).sum(dim=1), torch.full((data.SAMPLES,), 3))
    assert torch.all(inputs.gather(1, positions) == 49)
    assert targets.max() < 49
    assert len(torch.unique(positions, dim=0)) > data.SAMPLES / 2


def test_few_rows_of_a_table_are_in_most_samples() -> None:
    _, indices, clicked = data.clicks(0, dense=2, tables=3, rows=1000).batch(range(10_000))
    assert indices.min() == 0 and indices.max() == 999
    for table in indices.unbind(dim=1):
        common = table.bincount(minlength=1000).sort(descending=True).values.cumsum(0) / len(table)
        assert common[0] == pytest.approx(0.1, abs=0.01) and common[29] == pytest.approx(0.5, abs=0.02)
    assert clicked.double().mean() == pytest.approx(0.25, abs=0.01)


# Losses


@every_workload
def test_the_loss_is_a_finite_scalar(name: str) -> None:
    with torch.no_grad():
        loss = shared(name).loss(shared(name).build(), shared(name).batch(range(2)))
    assert loss.shape == () and loss.dtype == torch.float32 and bool(torch.isfinite(loss))


@tiny_workloads
def test_the_loss_is_the_mean_of_its_micro_batches(name: str) -> None:
    workload, module = shared(name), shared(name).build()
    with torch.no_grad():
        whole = workload.loss(module, workload.batch(range(8)))
        halves = [workload.loss(module, workload.batch(range(start, start + 4))) for start in (0, 4)]
    torch.testing.assert_close(whole, torch.stack(halves).mean())


@tiny_workloads
def test_the_loss_falls_on_samples_that_were_not_trained_on(name: str) -> None:
    workload, module = shared(name), shared(name).build()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def unseen() -> float:
        with torch.no_grad():
            return float(workload.loss(module, workload.batch(range(200, 232))))

    before = unseen()
    for step in range(12):
        workload.loss(module, workload.batch(range(16 * step, 16 * step + 16))).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert unseen() < 0.97 * before


# Real data


def test_digits_are_scikit_learns_and_are_read_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sklearn.datasets", None)  # importing it fails
        images, labels = data.read_digits()
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    expected = load_digits()
    assert torch.equal(images.squeeze(1), torch.tensor(expected.images))
    assert torch.equal(labels, torch.tensor(expected.target))


def test_digits_are_the_same_where_the_file_is_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = data.read_digits()
    import sklearn.datasets  # type: ignore[import-untyped]  # noqa: F401

    moved = ModuleSpec("sklearn", None)
    moved.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: moved)
    assert same(expected, data.read_digits())


def test_digits_are_standardised_and_each_is_there_once() -> None:
    images, labels = shared("digits").batch(range(1797))
    assert images.shape == (1797, 1, 8, 8)
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std().item() == pytest.approx(1, abs=1e-5)
    assert len(torch.unique(images.flatten(1), dim=0)) == len(torch.unique(data.read_digits()[0].flatten(1), dim=0))
    assert torch.equal(labels.bincount(), data.read_digits()[1].bincount())
    assert not shared("digits").info.data.synthetic


@pytest.fixture
def cifar_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's layout with two images per file; torchvision is told the MD5 sums of these files."""
    from torchvision.datasets import CIFAR10  # type: ignore[import-untyped]

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 2, 3072), dtype=np.uint8)

    def write(name: str, document: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(document))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    sums = [[name, write(name, {"data": pixels[file], "labels": [file, file + 1]})] for file, name in enumerate(names)]
    meta = write(CIFAR10.meta["filename"], {"label_names": [f"class {label}" for label in range(10)]})
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": meta})
    return tmp_path


@pytest.mark.parametrize("name", ["cnn_cifar", "resnet18", "vit_b_16"])
def test_cifar_10_is_read_from_the_folder(name: str, cifar_folder: Path) -> None:
    workload = load(name, data_dir=str(cifar_folder))
    assert workload.info.data.samples == 10 and not workload.info.data.synthetic
    images, labels = workload.batch(range(10))
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    restored = ((images * std.view(3, 1, 1) + mean.view(3, 1, 1)) * 255).round().to(torch.uint8)
    written: dict[bytes, int] = {}
    for file in (cifar_folder / "cifar-10-batches-py").glob("data_batch_*"):
        document = pickle.loads(file.read_bytes())
        written |= {row.tobytes(): label for row, label in zip(document["data"], document["labels"], strict=True)}
    found = {image.numpy().tobytes(): int(label) for image, label in zip(restored.flatten(1), labels, strict=True)}
    assert found == written
    assert bool(torch.isfinite(workload.loss(workload.build(), (images, labels))))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn_cifar", {}),
        ("resnet18", {}),
        ("resnet50", {}),
        ("vit_b_16", {"size": "tiny"}),
        ("vit_b_16", {"size": "b_16"}),
    ],
)
def test_a_folder_without_the_data_is_refused_by_name(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    large = name == "resnet50" or options.get("size") == "b_16"
    wanted, looked_for = ("ImageNet", "imagenet/train") if large else ("CIFAR-10", "cifar-10-batches-py")
    with pytest.raises(WorkloadError) as caught:
        load(name, data_dir=str(tmp_path), **options)
    message = str(caught.value)
    assert f"data_dir={tmp_path}" in message and wanted in message and looked_for in message
    assert "synthetic" in message and "\n" not in message


def test_damaged_cifar_10_is_refused_by_name(cifar_folder: Path) -> None:
    (cifar_folder / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(WorkloadError, match="no complete CIFAR-10"):
        load("cnn_cifar", data_dir=str(cifar_folder))


@pytest.fixture
def imagenet_folder(tmp_path: Path) -> Path:
    """Three classes in ImageNet's layout, two images each, all of one colour."""
    from PIL import Image

    for label in range(3):
        folder = tmp_path / "imagenet" / "train" / f"n0{label}"
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (300, 280), (80 * label, 10, 10)).save(folder / f"{number}.png")
    return tmp_path


def test_imagenet_is_read_from_the_folder(imagenet_folder: Path) -> None:
    source = data.imagenet(0, str(imagenet_folder))
    assert source.info.samples == 6 and not source.info.synthetic
    images, labels = source.batch(range(6))
    assert images.shape == (6, 3, 224, 224) and labels.bincount().tolist() == [2, 2, 2]
    red = (images[:, 0] * 0.229 + 0.485) * 255
    torch.testing.assert_close(red.amax((1, 2)), 80.0 * labels, atol=0.01, rtol=0)
    assert labels.tolist() != sorted(labels.tolist())  # a batch is not all of one class
    assert same((images[4:], labels[4:]), source.batch([10, 11]))


def test_an_imagenet_class_without_images_is_refused_by_name(imagenet_folder: Path) -> None:
    (imagenet_folder / "imagenet" / "train" / "empty").mkdir()
    with pytest.raises(WorkloadError, match="has no ImageNet"):
        load("resnet50", data_dir=str(imagenet_folder))


@pytest.mark.parametrize("name", [name for name in TINY if name not in ("cnn_cifar", "vit_b_16")])
def test_a_folder_is_refused_where_there_is_nothing_to_read_from_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="reads nothing from a folder"):
        load(name, data_dir=str(tmp_path))


# Factories and options


@every_workload
def test_a_configuration_lists_exactly_its_factorys_options(name: str) -> None:
    found = settings(name)
    module, attribute = found["factory"].split(":")
    taken = inspect.signature(getattr(sys.modules[module], attribute)).parameters
    assert set(found) - {"name", "factory"} == set(taken) - {"seed", "data_dir"}
    defaults = {option: taken[option].default for option in set(found) - {"name", "factory"}}
    if name == "resnet50":
        defaults |= {"depth": 50, "data": "imagenet"}
    if name == "module":
        defaults |= {"path": None, "input": list(defaults["input"])}
    assert {option: found[option] for option in defaults} == defaults


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
        ("workloads.digits:Digit", "has no callable 'Digit'; valid: Digits$"),
        ("workloads.digits:network", "does not take 'seed'"),
    ],
)
def test_a_factory_that_cannot_be_used_is_refused_by_name(factory: str, message: str) -> None:
    with pytest.raises(WorkloadError, match=message) as caught:
        workloads.load(factory, seed=0, data_dir=None, options={})
    assert factory in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_option_is_refused_with_the_valid_ones() -> None:
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
        ("gpt", {"context": 0}, "gpt: context=0 is not valid"),
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
def test_an_options_value_is_refused_with_what_is_valid(name: str, options: dict[str, Any], message: str) -> None:
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
