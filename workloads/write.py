"""Writes synthetic samples as the files that ``workloads.files`` reads: for ``data=loader`` without a ``data_dir``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

TRAIN = "train"
"""Folder of an image data set that has a folder for each class."""
TOKENS = "train.bin"
SYNTHETIC = "SYNTHETIC"
"""File beside the data that marks them as synthetic."""
QUALITY = 90
"""Of the JPEG files."""


def write_images(folder: Path, images: Tensor, labels: Tensor) -> None:
    """Writes images (n, 3, height, width), about standardised, as JPEG files of their classes."""
    from PIL import Image

    pixels = (images * 64 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    for index, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        place = folder / TRAIN / f"{label:04}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index:06}.jpg", quality=QUALITY)
    _mark(folder)


def write_tokens(folder: Path, inputs: Tensor, *_: Tensor) -> None:
    """Writes token ids (n, length), sequence after sequence."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs.numpy().astype("<u2").tofile(folder / TOKENS)
    _mark(folder)


def _mark(folder: Path) -> None:
    (folder / SYNTHETIC).write_text("These data were made from a seed (data=loader without data_dir).\n")


def fit_tokens(vocabulary: int) -> bool:
    """Whether all ids of a vocabulary have 16 bits."""
    return vocabulary <= np.iinfo(np.uint16).max + 1
