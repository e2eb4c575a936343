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
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from workloads.base import Batch, DataInfo, WorkloadError, seeded
from workloads.write import fit_tokens, write_images, write_tokens

SAMPLES = 257
"""Samples of a synthetic source."""
LARGE_SAMPLES = 61
"""Samples where one is large: 37 MB on each rank of synthetic ImageNet, 20 MB of ten seconds of speech."""
SMALL_SAMPLES = 65_537
"""Samples where one is small and many different ones are the point: 8 MB on each rank for the recommender."""


def samples_of(shape: Sequence[int]) -> int:
    """Number of samples of this shape in a synthetic source."""
    return SAMPLES if math.prod(shape) <= 2**14 else LARGE_SAMPLES


Write = Callable[..., None]
"""Writes columns as files below a folder, its first argument."""


class DataSource(Protocol):
    """The source of a workload's samples."""

    info: DataInfo

    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples with these global indices, which wrap around at ``info.samples``."""
        ...


class Bank:
    """Samples in memory, one per row of each column; ``prepare`` is applied to the first column of a batch."""

    def __init__(
        self,
        description: str,
        *columns: Tensor,
        synthetic: bool,
        prepare: Callable[[Tensor], Tensor] | None = None,
        write: Write | None = None,
    ) -> None:
        self.info = DataInfo(description, synthetic, samples=len(columns[0]), in_memory=True)
        self._columns = columns
        self._prepare = prepare
        self._write = write

    def batch(self, indices: Sequence[int]) -> Batch:
        rows = torch.tensor([index % self.info.samples for index in indices], dtype=torch.int64)
        inputs, *rest = (column[rows] for column in self._columns)
        return (self._prepare(inputs) if self._prepare else inputs, *rest)

    def write(self, folder: Path) -> bool:
        """Writes the samples as files that a workload of the same kind reads as its ``data_dir``; False if it reads
        none."""
        if self._write:
            self._write(folder, *self._columns)
        return self._write is not None


def digits(seed: int) -> DataSource:
    """Handwritten digits in an order drawn from the seed: images (n, 1, 8, 8), standardised, and labels (n)."""
    images, labels = read_digits()
    images = images / 16
    images = ((images - images.mean()) / images.std()).float()
    order = torch.randperm(len(labels), generator=generator_of(seed))
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


def synthetic_images(seed: int, shape: tuple[int, int, int], *, classes: int) -> DataSource:
    """Images (n, *shape) and labels (n): noise over a fainter pattern of 4x4 patches that the class sets."""
    channels, height, width = shape
    samples = samples_of(shape)
    generator = generator_of(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    patterns = torch.randn(classes, channels, 4, 4, generator=generator) * 0.25
    images = torch.randn(samples, *shape, generator=generator) * 0.5
    images += patterns[labels].repeat_interleave(height // 4, dim=2).repeat_interleave(width // 4, dim=3)
    size = "x".join(map(str, shape))
    description = f"{samples} fixed synthetic {size} images, {classes} classes"
    return Bank(description, images, labels, synthetic=True, write=write_images)


def arrays(seed: int, shape: Sequence[int], *, classes: int) -> DataSource:
    """Inputs (n, *shape) and labels (n): noise over a fainter pattern, constant but along the first dimension."""
    samples = samples_of(shape)
    generator = generator_of(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    patterns = torch.randn(classes, shape[0], generator=generator) * 0.25
    inputs = torch.randn(samples, *shape, generator=generator) * 0.5
    inputs += patterns[labels].view(samples, shape[0], *[1] * (len(shape) - 1))
    size = "x".join(map(str, shape))
    description = f"{samples} fixed synthetic samples of {size}, {classes} classes"
    write = write_images if len(shape) == 3 and shape[0] == 3 else None
    return Bank(description, inputs, labels, synthetic=True, write=write)


def tokens(seed: int, *, vocabulary: int, length: int, samples: int = SAMPLES) -> DataSource:
    """Inputs and targets, each (n, length) token ids; a target is the token that follows its input."""
    chain = _chain(generator_of(seed), vocabulary, samples, length + 1)
    description = f"{samples} fixed synthetic sequences of {length} tokens, vocabulary {vocabulary}"
    write = write_tokens if fit_tokens(vocabulary) else None
    return Bank(description, chain[:, :-1], chain[:, 1:], synthetic=True, write=write)


def masked_tokens(seed: int, *, vocabulary: int, length: int, masked: int, samples: int = SAMPLES) -> DataSource:
    """Token ids (n, length), ``masked`` positions of each sample (n, masked), and the tokens that stood there.

    The last id of the vocabulary stands in their place and nowhere else.
    """
    generator = generator_of(seed)
    whole = _chain(generator, vocabulary - 1, samples, length)
    positions = torch.rand(samples, length, generator=generator).argsort(dim=1)[:, :masked].sort(dim=1).values
    inputs = whole.scatter(1, positions, vocabulary - 1)
    description = f"{samples} fixed synthetic sequences of {length} tokens, {masked} masked, vocabulary {vocabulary}"
    targets = whole.gather(1, positions)

    write = partial(write_whole, whole) if fit_tokens(vocabulary) else None
    return Bank(description, inputs, positions, targets, synthetic=True, write=write)


def write_whole(whole: Tensor, folder: Path, *_: Tensor) -> None:
    """Writes tokens before some of them are masked."""
    write_tokens(folder, whole)


def vectors(seed: int, *, width: int, outputs: int | None = None, samples: int = SAMPLES) -> DataSource:
    """Inputs (n, width) and targets (n, outputs) of unit variance.

    A target is its input with columns and signs changed, cut or repeated to ``outputs`` (None: as many).
    """
    outputs = outputs or width
    generator = generator_of(seed)
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
    generator = generator_of(seed)
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
    generator = generator_of(seed)
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


def generator_of(seed: int) -> torch.Generator:
    """The generator of samples and their order."""
    # Not the seed of the weights: the first layer must not be a copy of the data. torch uses the low 32 bits only.
    return seeded(seed ^ 0x64617461)
