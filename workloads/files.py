"""Data sources that read a person's folder (``data_dir``): images of classes, CIFAR-10, tar shards, and tokens.

Without a folder they are the synthetic ones of ``workloads.data``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads import data
from workloads.base import Batch, DataInfo, WorkloadError
from workloads.data import Bank, DataSource
from workloads.shards import PATTERN, TarShards
from workloads.write import SYNTHETIC, TOKENS, TRAIN

IMAGENET = (3, 224, 224)
CIFAR10 = (3, 32, 32)
MAX_WINDOWS = 1_048_573
"""Windows that are drawn from a token file; a prime number, as the samples of a synthetic source (``data``)."""
CHECKED_TOKENS = 1 << 20
"""Of a token file that are compared with the vocabulary before a sweep."""

_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2470, 0.2435, 0.2616)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFolder:
    """Images of ``FOLDER/CLASS/FILE`` as (n, *shape), decoded on access, and their labels (n).

    Resized and centre-cropped as is usual for ImageNet (256 to 224), standardised, without random augmentation.
    """

    def __init__(self, seed: int, folder: Path, shape: tuple[int, ...] = IMAGENET) -> None:
        from torchvision import datasets

        self._images = datasets.ImageFolder(str(folder), preparation(shape))
        self.classes = len(self._images.classes)
        self._order = torch.randperm(len(self._images), generator=data.generator_of(seed)).tolist()
        synthetic = (folder.parent / SYNTHETIC).exists()
        kind = "synthetic" if synthetic else "real"
        description = f"image folder ({len(self._images)} {kind} images, {self.classes} classes)"
        self.info = DataInfo(description, synthetic, samples=len(self._images))

    def batch(self, indices: Sequence[int]) -> Batch:
        samples = [self._images[self._order[index % self.info.samples]] for index in indices]
        return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


def preparation(shape: tuple[int, ...]) -> Callable[[Any], Tensor]:
    """From an image of PIL to a tensor of ``shape``."""
    from torchvision import transforms

    height, width = shape[1:]
    steps = [
        transforms.Resize(round(max(height, width) * 256 / 224)),
        transforms.CenterCrop((height, width)),
        transforms.ToTensor(),
        transforms.Normalize(_IMAGENET_MEAN, _IMAGENET_STD),
    ]
    prepare: Callable[[Any], Tensor] = transforms.Compose(steps)
    return prepare


class TokenFile:
    """Windows of ``length`` tokens at random places of a file of 16-bit token ids, as nanoGPT reads its ``train.bin``.

    Inputs and targets, each (n, length); a target is the token that follows its input. The file is mapped, not read.
    """

    def __init__(self, seed: int, file: Path, *, vocabulary: int, length: int) -> None:
        self._tokens = np.memmap(file, dtype="<u2", mode="r")
        self._vocabulary, self._length = vocabulary, length
        windows = len(self._tokens) - length
        drawn = data.generator_of(seed)
        if windows <= MAX_WINDOWS:
            self._starts = torch.randperm(windows, generator=drawn).numpy()
        else:
            self._starts = torch.randint(windows, (MAX_WINDOWS,), generator=drawn).numpy()
        self._check(self._tokens[:CHECKED_TOKENS])
        synthetic = (file.parent / SYNTHETIC).exists()
        description = f"{'synthetic ' if synthetic else ''}token file ({len(self._tokens):,} tokens)"
        self.info = DataInfo(description, synthetic, samples=len(self._starts))

    def batch(self, indices: Sequence[int]) -> Batch:
        starts = [self._starts[index % self.info.samples] for index in indices]
        rows = np.stack([self._tokens[start : start + self._length + 1] for start in starts])
        self._check(rows)
        tokens = torch.from_numpy(rows.astype(np.int64))
        return tokens[:, :-1], tokens[:, 1:]

    def _check(self, tokens: np.ndarray[Any, np.dtype[np.uint16]]) -> None:
        """Raises WorkloadError for a token that the model has no embedding for."""
        most = int(tokens.max())
        if most >= self._vocabulary:
            raise WorkloadError(
                f"{TOKENS} has the token {most}, but the model has a vocabulary of {self._vocabulary}; "
                "valid: a file of the model's own tokens, or a model with a larger vocabulary"
            )


class MaskedTokenFile:
    """Token ids (n, length), ``masked`` positions of each sample (n, masked), and the tokens that stood there.

    The last id of the vocabulary stands in their place.
    """

    def __init__(self, seed: int, file: Path, *, vocabulary: int, length: int, masked: int) -> None:
        self._windows = TokenFile(seed, file, vocabulary=vocabulary - 1, length=length)
        self._mask = vocabulary - 1
        drawn = torch.rand(data.SAMPLES, length, generator=data.generator_of(seed))
        self._positions = drawn.argsort(dim=1)[:, :masked].sort(dim=1).values
        self.info = self._windows.info

    def batch(self, indices: Sequence[int]) -> Batch:
        whole, _ = self._windows.batch(indices)
        positions = self._positions[[index % len(self._positions) for index in indices]]
        return whole.scatter(1, positions, self._mask), positions, whole.gather(1, positions)


def tokens(seed: int, data_dir: str | None, *, vocabulary: int, length: int) -> DataSource:
    """Inputs and targets, each (n, length), from ``data_dir/train.bin``, else synthetic."""
    if data_dir is None:
        return data.tokens(seed, vocabulary=vocabulary, length=length)
    return TokenFile(seed, token_file(data_dir, length), vocabulary=vocabulary, length=length)


def masked_tokens(seed: int, data_dir: str | None, *, vocabulary: int, length: int, masked: int) -> DataSource:
    """Inputs, positions and targets (``MaskedTokenFile``) from ``data_dir/train.bin``, else synthetic."""
    if data_dir is None:
        return data.masked_tokens(seed, vocabulary=vocabulary, length=length, masked=masked)
    file = token_file(data_dir, length)
    return MaskedTokenFile(seed, file, vocabulary=vocabulary, length=length, masked=masked)


def token_file(data_dir: str, length: int) -> Path:
    """The file in the folder. Raises WorkloadError where there is none with a window of ``length`` tokens."""
    file = Path(data_dir).expanduser() / TOKENS
    if not file.is_file():
        raise not_there(data_dir, "token file", f"{file}: 16-bit token ids, as nanoGPT prepares them")
    size = file.stat().st_size
    if size % 2 or size // 2 <= length:
        raise not_there(
            data_dir, "usable token file", f"more than {length} ids of 2 bytes in {file}, found {size} bytes"
        )
    return file


def cifar10(seed: int, data_dir: str | None) -> DataSource:
    """Images (n, 3, 32, 32), standardised, and labels (n) of 10 classes: from ``data_dir``, else synthetic.

    CIFAR-10 as torchvision stores it is read into memory; images in folders or tar shards are decoded on access.
    """
    if data_dir is None:
        return data.synthetic_images(seed, CIFAR10, classes=10)
    root = Path(data_dir).expanduser()
    expected = root / "cifar-10-batches-py"
    if not expected.is_dir() and image_files(root):
        return images(seed, data_dir, CIFAR10, classes=10)
    if not expected.is_dir():
        raise not_there(data_dir, "CIFAR-10", f"the folder {expected}, or images in {root / TRAIN}/CLASS/ or {PATTERN}")
    from torchvision import datasets

    try:
        real = datasets.CIFAR10(root=str(root), train=True, download=False)
    except (RuntimeError, OSError) as error:
        raise not_there(data_dir, "complete CIFAR-10", f"torchvision's files, MD5-checked, in {expected}") from error
    order = torch.randperm(len(real.data), generator=data.generator_of(seed))
    pixels = torch.from_numpy(real.data).permute(0, 3, 1, 2)[order]
    labels = torch.tensor(real.targets)[order]
    description = f"CIFAR-10 training set ({len(order)} real images)"
    return Bank(description, pixels, labels, synthetic=False, prepare=_standardise_cifar10)


def imagenet(seed: int, data_dir: str | None) -> DataSource:
    """Images (n, 3, 224, 224), standardised, and labels (n) of 1000 classes: from ``data_dir``, else synthetic."""
    if data_dir is None:
        return data.synthetic_images(seed, IMAGENET, classes=1000)
    return images(seed, data_dir, IMAGENET, classes=1000)


def images(seed: int, data_dir: str, shape: tuple[int, ...], *, classes: int) -> DataSource:
    """Images (n, *shape) and labels (n) from ``data_dir/train/CLASS/FILE``, or below ``data_dir/imagenet``, or from tar
    shards in ``data_dir``.

    Raises WorkloadError where there are none, or more than ``classes`` classes.
    """
    root = Path(data_dir).expanduser()
    place = image_files(root)
    where = place if isinstance(place, Path) else root
    layout = f"images in {place or ' or '.join(map(str, image_folders(root)))}/CLASS/"
    what = "ImageNet" if shape == IMAGENET else "images"
    if not place:
        raise not_there(data_dir, what, f"{layout}, or tar shards {root / PATTERN}")
    source: ImageFolder | TarShards
    try:
        if isinstance(place, Path):
            source = ImageFolder(seed, place, shape)
        else:
            source = TarShards(seed, place, preparation(shape))
    except OSError as error:
        shards = f"tar shards {root / PATTERN} that can be read; {error}"
        looked_for = shards if isinstance(place, list) else f"{layout} with images in every one"
        raise not_there(data_dir, what, looked_for) from error
    if source.classes > classes:
        raise not_there(
            data_dir,
            what,
            f"at most {classes} classes in {where}, found {source.classes}",
        )
    return source


def image_folders(root: Path) -> list[Path]:
    """Where a folder for each class may be."""
    return [root / "imagenet" / TRAIN, root / TRAIN]


def image_files(root: Path) -> Path | list[Path] | None:
    """The folder that has a folder for each class, else the tar shards; None without either."""
    folder = next((folder for folder in image_folders(root) if folder.is_dir()), None)
    return folder or sorted(root.glob(PATTERN)) or None


def images_or(
    synthetic: Callable[[], DataSource],
    seed: int,
    data_dir: str | None,
    shape: tuple[int, ...],
    *,
    classes: int,
    of: str,
) -> DataSource:
    """Images of ``shape`` from the folder, else the synthetic source. Raises WorkloadError for other shapes."""
    if data_dir is None:
        return synthetic()
    if len(shape) != 3 or shape[0] != 3:
        data.reject_data_dir(f"{of} with inputs of {'x'.join(map(str, shape))}, not 3 x height x width,", data_dir)
    return images(seed, data_dir, shape, classes=classes)


def not_there(data_dir: str, what: str, looked_for: str) -> WorkloadError:
    """The error for a folder without the data."""
    return WorkloadError(
        f"data_dir={data_dir} has no {what} (looked for {looked_for}); "
        "valid: a folder that has it, or data_dir unset (null), which gives fixed synthetic data"
    )


def _standardise_cifar10(pixels: Tensor) -> Tensor:
    mean = torch.tensor(_CIFAR10_MEAN).view(3, 1, 1)
    std = torch.tensor(_CIFAR10_STD).view(3, 1, 1)
    return (pixels / 255 - mean) / std
