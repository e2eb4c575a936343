"""Data sources: samples as a pure function of their global indices.

Synthetic sources are drawn once from the seed and carry structure that a model can learn, so that a loss
that does not fall is a fault. They hold a prime number of samples: with one that divides a rank's batch,
every rank would draw the same samples, and an engine that never communicates would pass for correct.
They are made by elementwise arithmetic alone, so that they do not depend on the number of threads.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from workloads.base import Batch, DataInfo, WorkloadError, seeded

SAMPLES = 257
"""Samples of a synthetic source."""
LARGE_SAMPLES = 61
"""Samples where one is large: 37 MB on each rank of synthetic ImageNet, 20 MB of ten seconds of speech."""
SMALL_SAMPLES = 65_537
"""Samples where one is small and many different ones are the point: 8 MB on each rank for the recommender."""

_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2470, 0.2435, 0.2616)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def samples_of(shape: Sequence[int]) -> int:
    """Number of samples of this shape in a synthetic source."""
    return SAMPLES if math.prod(shape) <= 2**14 else LARGE_SAMPLES


class DataSource(Protocol):
    """The source of a workload's samples."""

    info: DataInfo

    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples with these global indices, which wrap around at ``info.samples``."""
        ...


class Bank:
    """Samples in memory, one per row of each column; ``prepare`` is applied to the first column of a batch."""

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
    """Images of ``FOLDER/CLASS/FILE``, decoded on access: resized to 256, centre-cropped to 224, standardised."""

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


def digits(seed: int) -> DataSource:
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


def cifar10(seed: int, data_dir: str | None) -> DataSource:
    """Images (n, 3, 32, 32), standardised, and labels (n) of 10 classes: CIFAR-10 in ``data_dir``, else synthetic."""
    if data_dir is None:
        return synthetic_images(seed, (3, 32, 32), classes=10)
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


def imagenet(seed: int, data_dir: str | None) -> DataSource:
    """Images (n, 3, 224, 224), standardised, and labels (n) of 1000 classes.

    Real ones from ``data_dir/imagenet/train/CLASS/FILE`` (any number of classes up to 1000), else synthetic.
    """
    if data_dir is None:
        return synthetic_images(seed, (3, 224, 224), classes=1000)
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


def synthetic_images(seed: int, shape: tuple[int, int, int], *, classes: int) -> DataSource:
    """Images (n, *shape) and labels (n): noise over a fainter pattern of 4x4 patches that the class sets."""
    channels, height, width = shape
    samples = samples_of(shape)
    generator = _generator(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    patterns = torch.randn(classes, channels, 4, 4, generator=generator) * 0.25
    images = torch.randn(samples, *shape, generator=generator) * 0.5
    images += patterns[labels].repeat_interleave(height // 4, dim=2).repeat_interleave(width // 4, dim=3)
    size = "x".join(map(str, shape))
    return Bank(f"{samples} fixed synthetic {size} images, {classes} classes", images, labels, synthetic=True)


def arrays(seed: int, shape: Sequence[int], *, classes: int) -> DataSource:
    """Inputs (n, *shape) and labels (n): noise over a fainter pattern, constant but along the first dimension."""
    samples = samples_of(shape)
    generator = _generator(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    patterns = torch.randn(classes, shape[0], generator=generator) * 0.25
    inputs = torch.randn(samples, *shape, generator=generator) * 0.5
    inputs += patterns[labels].view(samples, shape[0], *[1] * (len(shape) - 1))
    size = "x".join(map(str, shape))
    return Bank(f"{samples} fixed synthetic samples of {size}, {classes} classes", inputs, labels, synthetic=True)


def tokens(seed: int, *, vocabulary: int, length: int, samples: int = SAMPLES) -> DataSource:
    """Inputs and targets, each (n, length) token ids; a target is the token that follows its input."""
    chain = _chain(_generator(seed), vocabulary, samples, length + 1)
    description = f"{samples} fixed synthetic sequences of {length} tokens, vocabulary {vocabulary}"
    return Bank(description, chain[:, :-1], chain[:, 1:], synthetic=True)


def masked_tokens(seed: int, *, vocabulary: int, length: int, masked: int, samples: int = SAMPLES) -> DataSource:
    """Token ids (n, length), ``masked`` positions of each sample (n, masked), and the tokens that stood there.

    The last id of the vocabulary stands in their place and nowhere else.
    """
    generator = _generator(seed)
    whole = _chain(generator, vocabulary - 1, samples, length)
    positions = torch.rand(samples, length, generator=generator).argsort(dim=1)[:, :masked].sort(dim=1).values
    inputs = whole.scatter(1, positions, vocabulary - 1)
    description = f"{samples} fixed synthetic sequences of {length} tokens, {masked} masked, vocabulary {vocabulary}"
    return Bank(description, inputs, positions, whole.gather(1, positions), synthetic=True)


def vectors(seed: int, *, width: int, outputs: int | None = None, samples: int = SAMPLES) -> DataSource:
    """Inputs (n, width) and targets (n, outputs) of unit variance.

    A target is its input with columns and signs changed, cut or repeated to ``outputs`` (None: as many).
    """
    outputs = outputs or width
    generator = _generator(seed)
    inputs = torch.randn(samples, width, generator=generator)
    order = torch.randperm(width, generator=generator)[torch.arange(outputs) % width]
    signs = torch.randint(2, (outputs,), generator=generator) * 2 - 1
    shape = f"{width}" if outputs == width else f"{width} and their targets of {outputs}"
    return Bank(f"{samples} fixed synthetic vectors of {shape}", inputs, inputs[:, order] * signs, synthetic=True)


def clicks(seed: int, *, dense: int, tables: int, rows: int, samples: int = SMALL_SAMPLES) -> DataSource:
    """Dense features (n, dense), a row of each table (n, tables), and whether it was clicked (n), as labels 0 and 1.

    Row k is drawn in proportion to 1/(k + 1), about: few rows are in most samples. A quarter of the samples are
    clicked, those in which the first dense feature and the popularity of the first table's row are high.
    """
    generator = _generator(seed)
    features = torch.randn(samples, dense, generator=generator)
    drawn = torch.rand(samples, tables, generator=generator, dtype=torch.float64)
    indices = (torch.pow(float(rows + 1), drawn).long() - 1).clamp(max=rows - 1)
    score = features[:, 0] - drawn[:, 0]
    clicked = score > score.sort().values[samples * 3 // 4]
    description = f"{samples} fixed synthetic samples of {dense} dense features and a row of each of {tables} tables"
    return Bank(description, features, indices, clicked.long(), synthetic=True)


def utterances(seed: int, *, frames: int, mels: int, stride: int, classes: int) -> DataSource:
    """Log-mel features (n, frames, mels) and the class of each ``stride`` frames (n, frames // stride).

    Noise over a fainter spectrum that the class sets.
    """
    samples = samples_of((frames, mels))
    generator = _generator(seed)
    labels = torch.randint(classes, (samples, frames // stride), generator=generator)
    spectra = torch.randn(classes, mels, generator=generator) * 0.25
    features = torch.randn(samples, frames, mels, generator=generator) * 0.5
    features += spectra[labels].repeat_interleave(stride, dim=1)
    description = f"{samples} fixed synthetic utterances of {frames} frames of {mels}, {classes} classes"
    return Bank(description, features, labels, synthetic=True)


def reject_data_dir(workload: str, data_dir: str | None) -> None:
    """Raises WorkloadError where a person named a folder that the workload would not read."""
    if data_dir is not None:
        raise WorkloadError(
            f"{workload} reads nothing from a folder, so data_dir={data_dir} is not valid; valid: data_dir unset (null)"
        )


def _chain(generator: torch.Generator, vocabulary: int, samples: int, length: int) -> Tensor:
    """Token ids (samples, length) of a first-order Markov chain.

    Each token has four successors, equally likely, and low ids are the common ones. The best possible loss of
    predicting the next one is thus at most log 4 = 1.39 nats.
    """
    skewed = torch.rand(vocabulary, 4, generator=generator).pow(3)
    successors = (skewed * vocabulary).long()
    moves = torch.randint(4, (samples, length - 1), generator=generator)
    chain = torch.empty(samples, length, dtype=torch.int64)
    chain[:, 0] = torch.randint(vocabulary, (samples,), generator=generator)
    for position in range(length - 1):
        chain[:, position + 1] = successors[chain[:, position], moves[:, position]]
    return chain


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
