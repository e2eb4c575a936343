"""Data sources: samples as a pure function of their global indices.

Synthetic sources are drawn once from the seed and carry structure that a model can learn, so that a loss
that does not fall is a fault. They hold a prime number of samples: with one that divides a rank's batch,
every rank would draw the same samples, and an engine that never communicates would pass for correct.
They are made by elementwise arithmetic alone, so that they do not depend on the number of threads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from workloads.base import Batch, DataInfo, WorkloadError, seeded

SAMPLES = 257
"""Samples of a synthetic source."""
IMAGENET_SAMPLES = 61
"""Samples of synthetic ImageNet: 37 MB on each rank."""

_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2470, 0.2435, 0.2616)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class Source(Protocol):
    """Where a workload's samples come from."""

    info: DataInfo

    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples with these global indices, which wrap around at ``info.samples``."""
        ...


class Bank:
    """Samples held in memory, one per row of each column; ``prepare`` is applied to the first column of a batch."""

    def __init__(
        self, description: str, *columns: Tensor, synthetic: bool, prepare: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.info = DataInfo(description, synthetic, samples=len(columns[0]))
        self._columns = columns
        self._prepare = prepare

    def batch(self, indices: Sequence[int]) -> Batch:
        rows = torch.tensor([index % self.info.samples for index in indices], dtype=torch.int64)
        inputs, *rest = (column[rows] for column in self._columns)
        return (self._prepare(inputs) if self._prepare else inputs, *rest)


class ImageNetFolder:
    """Images of ``FOLDER/CLASS/FILE``, decoded when asked for: resized to 256, centre-cropped to 224, standardised."""

    def __init__(self, seed: int, folder: Path) -> None:
        from torchvision import datasets, transforms

        steps = [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(_IMAGENET_MEAN, _IMAGENET_STD),
        ]
        self._images = datasets.ImageFolder(str(folder), transforms.Compose(steps))
        self.classes = len(self._images.classes)
        self._order = torch.randperm(len(self._images), generator=_generator(seed)).tolist()
        description = f"ImageNet-style folder ({len(self._images)} real images, {self.classes} classes)"
        self.info = DataInfo(description, synthetic=False, samples=len(self._images))

    def batch(self, indices: Sequence[int]) -> Batch:
        samples = [self._images[self._order[index % self.info.samples]] for index in indices]
        return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


def digits(seed: int) -> Source:
    """Handwritten digits in an order drawn from the seed: images (n, 1, 8, 8), standardised, and labels (n)."""
    images, labels = read_digits()
    images = images / 16
    images = ((images - images.mean()) / images.std()).float()
    order = torch.randperm(len(labels), generator=_generator(seed))
    return Bank("scikit-learn's handwritten digits (1797 real images)", images[order], labels[order], synthetic=False)


def read_digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8), float64 with values 0 to 16, and labels (1797), from scikit-learn's package folder.

    Importing scikit-learn takes seconds, so it is done only where the file is not where it should be.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None:
        raise WorkloadError("digits needs the data in scikit-learn, which is not installed; valid: scikit-learn>=1.4")
    files = [Path(folder, "datasets", "data", "digits.csv.gz") for folder in spec.submodule_search_locations or ()]
    file = next((file for file in files if file.is_file()), None)
    if file is not None:
        table = np.loadtxt(file, delimiter=",")
        pixels, labels = table[:, :-1], table[:, -1]
    else:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels).reshape(-1, 1, 8, 8), torch.tensor(labels, dtype=torch.int64)


def cifar10(seed: int, data_dir: str | None) -> Source:
    """Images (n, 3, 32, 32), standardised, and labels (n) of 10 classes: CIFAR-10 in ``data_dir``, else synthetic."""
    if data_dir is None:
        return synthetic_images(seed, (3, 32, 32), classes=10, samples=SAMPLES)
    folder = Path(data_dir).expanduser()
    expected = folder / "cifar-10-batches-py"
    if not expected.is_dir():
        raise _not_there(data_dir, "CIFAR-10", f"the folder {expected}")
    from torchvision import datasets

    try:
        real = datasets.CIFAR10(root=str(folder), train=True, download=False)
    except (RuntimeError, OSError) as error:
        raise _not_there(data_dir, "complete CIFAR-10", f"torchvision's files, MD5-checked, in {expected}") from error
    order = torch.randperm(len(real.data), generator=_generator(seed))
    images = torch.from_numpy(real.data).permute(0, 3, 1, 2)[order]
    labels = torch.tensor(real.targets)[order]
    description = f"CIFAR-10 training set ({len(order)} real images)"
    return Bank(description, images, labels, synthetic=False, prepare=_standardise_cifar10)


def imagenet(seed: int, data_dir: str | None) -> Source:
    """Images (n, 3, 224, 224), standardised, and labels (n) of 1000 classes.

    Real ones from ``data_dir/imagenet/train/CLASS/FILE`` (any number of classes up to 1000), else synthetic.
    """
    if data_dir is None:
        return synthetic_images(seed, (3, 224, 224), classes=1000, samples=IMAGENET_SAMPLES)
    folder = Path(data_dir).expanduser() / "imagenet" / "train"
    layout = f"images in {folder}/CLASS/"
    if not folder.is_dir():
        raise _not_there(data_dir, "ImageNet", layout)
    try:
        source = ImageNetFolder(seed, folder)
    except OSError as error:
        raise _not_there(data_dir, "ImageNet", f"{layout} with images in every one") from error
    if source.classes > 1000:
        raise _not_there(data_dir, "ImageNet", f"at most 1000 classes in {folder}, found {source.classes}")
    return source


def synthetic_images(seed: int, shape: tuple[int, int, int], *, classes: int, samples: int) -> Source:
    """Images (n, *shape) and labels (n): noise over a fainter pattern of 4x4 patches that the class sets."""
    channels, height, width = shape
    generator = _generator(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    patterns = torch.randn(classes, channels, 4, 4, generator=generator) * 0.25
    images = torch.randn(samples, *shape, generator=generator) * 0.5
    images += patterns[labels].repeat_interleave(height // 4, dim=2).repeat_interleave(width // 4, dim=3)
    size = "x".join(map(str, shape))
    return Bank(f"{samples} fixed synthetic {size} images, {classes} classes", images, labels, synthetic=True)


def tokens(seed: int, *, vocabulary: int, length: int, samples: int = SAMPLES) -> Source:
    """Inputs and targets, each (n, length) token ids; a target is the token that follows its input.

    A first-order Markov chain: each token has four successors, equally likely, and low ids are the common ones.
    The best possible loss is thus at most log 4 = 1.39 nats.
    """
    generator = _generator(seed)
    skewed = torch.rand(vocabulary, 4, generator=generator).pow(3)
    successors = (skewed * vocabulary).long()
    moves = torch.randint(4, (samples, length), generator=generator)
    chain = torch.empty(samples, length + 1, dtype=torch.int64)
    chain[:, 0] = torch.randint(vocabulary, (samples,), generator=generator)
    for position in range(length):
        chain[:, position + 1] = successors[chain[:, position], moves[:, position]]
    description = f"{samples} fixed synthetic sequences of {length} tokens, vocabulary {vocabulary}"
    return Bank(description, chain[:, :-1], chain[:, 1:], synthetic=True)


def vectors(seed: int, *, width: int, samples: int = SAMPLES) -> Source:
    """Inputs and targets, each (n, width) of unit variance; a target is its input with columns and signs changed."""
    generator = _generator(seed)
    inputs = torch.randn(samples, width, generator=generator)
    order = torch.randperm(width, generator=generator)
    signs = torch.randint(2, (width,), generator=generator) * 2 - 1
    return Bank(f"{samples} fixed synthetic vectors of {width}", inputs, inputs[:, order] * signs, synthetic=True)


def refuse_data_dir(workload: str, data_dir: str | None) -> None:
    """Raises WorkloadError where a person named a folder and the workload has no real data to read from it."""
    if data_dir is not None:
        raise WorkloadError(
            f"{workload} reads no real data, so data_dir={data_dir} is not valid; "
            "valid: data_dir unset (null), which gives fixed synthetic data"
        )


def _generator(seed: int) -> torch.Generator:
    # Not the seed of the weights: the first layer must not be a copy of the data. torch uses the low 32 bits only.
    return seeded(seed ^ 0x64617461)


def _standardise_cifar10(images: Tensor) -> Tensor:
    mean = torch.tensor(_CIFAR10_MEAN).view(3, 1, 1)
    std = torch.tensor(_CIFAR10_STD).view(3, 1, 1)
    return (images / 255 - mean) / std


def _not_there(data_dir: str, what: str, looked_for: str) -> WorkloadError:
    return WorkloadError(
        f"data_dir={data_dir} has no {what} (looked for {looked_for}); "
        "valid: a folder that has it, or data_dir unset (null), which gives fixed synthetic data"
    )
