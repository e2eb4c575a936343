"""Images in tar shards, as webdataset writes them: ``KEY.jpg`` and ``KEY.cls`` stand next to each other in a shard.

The library webdataset reads shards one sample after another. A workload is asked for samples by their index, and a
sample must depend on its index alone. So the place of each sample is read once, and its bytes when it is needed.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workloads import data
from workloads.base import Batch, DataInfo, WorkloadError

PATTERN = "*.tar"
IMAGES = ("jpg", "jpeg", "png", "ppm", "webp")
LABEL = "cls"


@dataclass(frozen=True)
class Place:
    """The bytes of an image in a shard, and its label."""

    shard: int
    offset: int
    size: int
    label: int


class TarShards:
    """Images of the shards ``files`` as (n, *shape), decoded on access by ``prepare``, and their labels (n)."""

    def __init__(self, seed: int, files: Sequence[Path], prepare: Callable[[Any], Tensor]) -> None:
        self._files = list(files)  # opened for each image: there may be more shards than a process may open
        places = [place for number, file in enumerate(files) for place in places_in(number, file)]
        if not places:
            raise WorkloadError(
                f"{files[0]} has no samples; valid: tar shards as webdataset writes them, with KEY.jpg and KEY.cls"
            )
        order = torch.randperm(len(places), generator=data.generator_of(seed)).tolist()
        self._places = [places[index] for index in order]
        self._prepare = prepare
        self.classes = 1 + max(place.label for place in places)
        shards = f"{len(files)} tar shard{'s' if len(files) > 1 else ''}"
        description = f"{shards} ({len(places)} real images, {self.classes} classes)"
        self.info = DataInfo(description, synthetic=False, samples=len(places))

    def batch(self, indices: Sequence[int]) -> Batch:
        places = [self._places[index % self.info.samples] for index in indices]
        return torch.stack([self._image(place) for place in places]), torch.tensor([place.label for place in places])

    def _image(self, place: Place) -> Tensor:
        from PIL import Image

        with self._files[place.shard].open("rb") as shard:
            shard.seek(place.offset)
            content = shard.read(place.size)
        return self._prepare(Image.open(io.BytesIO(content)).convert("RGB"))


def places_in(number: int, file: Path) -> list[Place]:
    """The samples of a shard, in order. Raises WorkloadError for a file that is no shard, and an image without a
    label."""
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    try:
        with tarfile.open(file, "r:") as shard:
            for member in shard:
                folder, _, name = member.name.rpartition("/")
                key, _, extension = name.partition(".")
                if member.isfile() and key:
                    samples.setdefault(f"{folder}/{key}", {})[extension.lower()] = member
    except tarfile.TarError as error:
        raise WorkloadError(
            f"{file} is no tar file without compression ({error}); valid: a shard with KEY.jpg and KEY.cls"
        ) from error
    places = []
    with file.open("rb") as content:
        for key, members in samples.items():
            image = next((members[kind] for kind in IMAGES if kind in members), None)
            if image is None:
                continue
            label = label_of(content, members.get(LABEL), file, key)
            places.append(Place(number, image.offset_data, image.size, label))
    return places


def label_of(content: io.BufferedReader, member: tarfile.TarInfo | None, file: Path, key: str) -> int:
    """The class of a sample. Raises WorkloadError where there is none."""
    text = b""
    if member is not None:
        content.seek(member.offset_data)
        text = content.read(member.size).strip()
    if not text.isdigit():
        raise WorkloadError(f"{file}: {key.lstrip('/')} has no class in KEY.{LABEL}; valid: a whole number from 0")
    return int(text)
