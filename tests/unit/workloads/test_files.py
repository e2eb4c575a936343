"""Samples from a person's folder: tokens and images, and the files that are written where there is no folder."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.workload_cases import load, same
from workloads import WorkloadError, files
from workloads.base import DataInfo

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def token_folder(tmp_path: Path) -> Path:
    """A file as nanoGPT prepares it: token i is i modulo 250."""
    (np.arange(1000) % 250).astype(np.uint16).tofile(tmp_path / "train.bin")
    return tmp_path


def test_tokens_are_windows_of_the_file_at_places_drawn_from_the_seed(token_folder: Path) -> None:
    source = files.tokens(3, str(token_folder), vocabulary=256, length=8)
    assert source.info == DataInfo("token file (1,000 tokens)", synthetic=False, samples=992)
    inputs, targets = source.batch(range(992))
    assert torch.equal(targets, (inputs + 1) % 250) and torch.equal(inputs[:, 1:], targets[:, :-1])
    assert len(torch.unique(inputs[:, 0])) == 250 and not torch.equal(inputs[:, 0], inputs[:, 0].sort().values)
    assert same(source.batch([5, 7]), files.tokens(3, str(token_folder), vocabulary=256, length=8).batch([5, 999]))
    other, _ = files.tokens(4, str(token_folder), vocabulary=256, length=8).batch(range(992))
    assert not torch.equal(inputs, other)


def test_a_token_beyond_the_vocabulary_is_rejected(token_folder: Path) -> None:
    with pytest.raises(WorkloadError, match=r"train.bin has the token 249.*vocabulary of 249"):
        files.tokens(0, str(token_folder), vocabulary=249, length=8)


@pytest.mark.parametrize("content", [None, b"", b"123", b"1" * 16])
def test_a_folder_without_enough_tokens_is_rejected(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "train.bin").write_bytes(content)
    with pytest.raises(WorkloadError, match=r"data_dir=.*(has no token file|more than 8 ids)") as caught:
        files.tokens(0, str(tmp_path), vocabulary=256, length=8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gpt", "bert", "cnn_cifar", "vit_b_16"])
def test_what_a_workload_writes_it_reads(name: str, tmp_path: Path) -> None:
    options = {"size": "tiny"} if name != "cnn_cifar" else {}
    made = load(name, **options)
    assert made.write_files(tmp_path)  # type: ignore[attr-defined]
    read = load(name, data_dir=str(tmp_path), **options)
    assert read.info.data.synthetic and "synthetic" in read.info.data.description
    ours, theirs = made.batch(range(4)), read.batch(range(4))
    assert [(column.shape, column.dtype) for column in ours] == [(column.shape, column.dtype) for column in theirs]
    assert bool(torch.isfinite(read.loss(read.build(), theirs)))


def test_written_images_are_those_of_the_source(tmp_path: Path) -> None:
    made = load("cnn_cifar")
    made.write_files(tmp_path)  # type: ignore[attr-defined]
    images, labels = made.batch(range(257))
    written = {int(file.stem): int(file.parent.name) for file in tmp_path.glob("train/*/*.jpg")}
    assert written == dict(enumerate(labels.tolist()))
    from PIL import Image

    pixels = np.asarray(Image.open(next(tmp_path.glob("train/*/000003.jpg"))), dtype=np.float32)
    restored = (torch.from_numpy(pixels.transpose(2, 0, 1).copy()) - 128) / 64
    alike = torch.corrcoef(torch.cat([restored.reshape(1, -1), images.flatten(1)]))[0, 1:]
    assert int(alike.argmax()) == 3 and alike[3] > 0.6  # JPEG halves the resolution of colours


def test_a_workload_without_a_file_format_writes_nothing(tmp_path: Path) -> None:
    assert not load("mlp").write_files(tmp_path)  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


def test_images_in_tar_shards_are_read_by_index(tmp_path: Path) -> None:
    from PIL import Image

    for shard in range(2):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as file:
            for number in range(3):
                image = io.BytesIO()
                label = 3 * shard + number
                Image.new("RGB", (40, 36), (40 * label, 10, 10)).save(image, "png")
                for extension, content in (("cls", str(label).encode()), ("png", image.getvalue()), ("json", b"{}")):
                    member = tarfile.TarInfo(f"./{number:04}.{extension}")
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
    descriptors = len(os.listdir("/dev/fd"))
    source = files.images(0, str(tmp_path), (3, 32, 32), classes=6)
    assert source.info == DataInfo("2 tar shards (6 real images, 6 classes)", synthetic=False, samples=6)
    images, labels = source.batch(range(6))
    assert len(os.listdir("/dev/fd")) == descriptors, "no shard stays open"
    red = (images[:, 0] * 0.229 + 0.485) * 255
    torch.testing.assert_close(red.amax((1, 2)), 40.0 * labels, atol=0.01, rtol=0)
    assert sorted(labels.tolist()) == list(range(6)) != labels.tolist()
    assert same((images[4:], labels[4:]), source.batch([10, 11]))
    assert load("cnn_cifar", data_dir=str(tmp_path)).info.data.samples == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no tar", "is no tar file without compression"), (None, "0 has no class in KEY.cls; valid: a whole number")],
)
def test_a_shard_that_is_none_is_rejected(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "train-0.tar"
    if content is None:
        with tarfile.open(file, "w") as shard:
            shard.addfile(tarfile.TarInfo("0.jpg"))
    else:
        file.write_bytes(content)
    with pytest.raises(WorkloadError, match=message):
        files.images(0, str(tmp_path), (3, 32, 32), classes=6)


def test_a_folder_named_as_a_shard_is_rejected_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar").mkdir()
    with pytest.raises(WorkloadError, match=r"tar shards .*\*\.tar that can be read; .*train-0\.tar"):
        files.images(0, str(tmp_path), (3, 32, 32), classes=6)
