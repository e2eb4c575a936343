"""Real data: digits from scikit-learn's file, CIFAR-10 and ImageNet from a folder, and what is no such folder."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.job import LoadJob, WorkloadSpec
from bench.worker.batches import load as bench_load
from tests.workload_cases import (
    TINY,
    load,
    same,
    shared,
)
from workloads import WorkloadError, data, files

pytestmark = pytest.mark.usefixtures("one_thread")


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
    """CIFAR-10's layout with two images per file; torchvision gets the MD5 sums of these files."""
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
    label_of = {image.numpy().tobytes(): int(label) for image, label in zip(restored.flatten(1), labels, strict=True)}
    assert label_of == written
    assert bool(torch.isfinite(workload.loss(workload.build(), (images, labels))))


@pytest.mark.parametrize("reads", [False, True])
def test_a_loader_rejects_a_folder_whose_samples_are_in_memory(reads: bool, cifar_folder: Path) -> None:
    spec = WorkloadSpec("workloads.cnn_cifar:CnnCifar", 0, str(cifar_folder), {})
    job = LoadJob(workload=spec, reads=reads, world_size=1, threads=1, deterministic=False, timeout_s=60)
    rejected = pytest.raises(WorkloadError, match=r"in memory\. Valid: data_dir with train/CLASS/FILE, or data=pool")
    with rejected if reads else contextlib.nullcontext():
        bench_load(job)


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
def test_a_folder_without_the_data_is_rejected_by_its_name(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    large = name == "resnet50" or options.get("size") == "b_16"
    wanted, looked_for = ("ImageNet", "imagenet/train") if large else ("CIFAR-10", "cifar-10-batches-py")
    with pytest.raises(WorkloadError) as caught:
        load(name, data_dir=str(tmp_path), **options)
    message = str(caught.value)
    assert f"data_dir={tmp_path}" in message and wanted in message and looked_for in message
    assert "synthetic" in message and "\n" not in message


def test_damaged_cifar_10_is_rejected_by_its_name(cifar_folder: Path) -> None:
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
    source = files.imagenet(0, str(imagenet_folder))
    assert source.info.samples == 6 and not source.info.synthetic
    images, labels = source.batch(range(6))
    assert images.shape == (6, 3, 224, 224) and labels.bincount().tolist() == [2, 2, 2]
    red = (images[:, 0] * 0.229 + 0.485) * 255
    torch.testing.assert_close(red.amax((1, 2)), 80.0 * labels, atol=0.01, rtol=0)
    assert labels.tolist() != sorted(labels.tolist())  # a batch is not all of one class
    assert same((images[4:], labels[4:]), source.batch([10, 11]))


def test_an_imagenet_class_without_images_is_rejected_by_its_name(imagenet_folder: Path) -> None:
    (imagenet_folder / "imagenet" / "train" / "empty").mkdir()
    with pytest.raises(WorkloadError, match="has no ImageNet"):
        load("resnet50", data_dir=str(imagenet_folder))


FROM_FILES = ("cnn_cifar", "vit_b_16", "gpt", "bert", "hf", "timm", "torchvision", "module")


@pytest.mark.parametrize("name", [name for name in TINY if name not in FROM_FILES])
def test_a_folder_is_rejected_where_there_is_nothing_to_read_from_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="reads nothing from a folder"):
        load(name, data_dir=str(tmp_path))
