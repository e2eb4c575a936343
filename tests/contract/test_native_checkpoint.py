"""Checkpoints of the native engine: what comes back, what is rejected, and what a crash leaves."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint_ranks import Ranks

SHARD = "rank-00001-of-00002.pt"


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    server = Ranks()
    yield server
    server.close()


@pytest.fixture(scope="module")
def saved(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound checkpoint of stage 1 on two ranks."""
    folder = tmp_path_factory.mktemp("sound") / "checkpoint"
    assert ranks.launch([["train", 0, 2], ["save", str(folder)]], stage=1) == [[None, None]] * 2
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def rewrite_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the index as one who knows the format would."""
    path = folder / "index.json"
    document = json.loads(path.read_text())
    document.pop("sha256")
    change(document)
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(document | {"sha256": digest}))


@pytest.fixture
def rejection(ranks: Ranks) -> Callable[..., str]:
    """What all ranks say of a checkpoint that they reject, having changed nothing."""

    def find(folder: Path, *, stage: int = 1, **settings: Any) -> str:
        actions = [["train", 0, 1], ["state"], ["load", str(folder)], ["state"], ["train", 1, 2]]
        rank_outcomes = ranks.launch(actions, stage=stage, **settings)
        messages = {outcomes[2] for outcomes in rank_outcomes}
        assert all(before == after for _, before, _, after, _ in rank_outcomes)
        assert len(messages) == 1, messages
        message = messages.pop()
        assert message and "\n" not in message
        return str(message)

    return find


@pytest.mark.parametrize("stage", [0, 3, *(pytest.param(stage, marks=pytest.mark.exhaustive) for stage in (1, 2))])
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw", "precision": "amp_bf16", "bucket_mb": 0.001},
        {"optimizer": "sgd"},
        {"optimizer": "rmsprop", "precision": "bf16"},
        {"optimizer": "adam", "precision": "bf16_master"},
        {"optimizer": "sgd", "precision": "amp_fp16", "clip_norm": 0.5},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_training_continues_bit_by_bit(stage: int, settings: dict[str, Any], ranks: Ranks, tmp_path: Path) -> None:
    folder = str(tmp_path / "checkpoint")
    settings = {"stage": stage, "model": "rich"} | settings
    first = ranks.launch([["train", 0, 3], ["save", folder], ["state"], ["train", 3, 6], ["state"]], **settings)
    again = ranks.launch([["draw"], ["load", folder], ["state"], ["train", 3, 6], ["state"]], seed=8, **settings)
    assert [outcomes[2:] for outcomes in again] == [outcomes[2:] for outcomes in first]
    assert [outcomes[1] for outcomes in first + again] == [None] * 4
    assert first[0][2] != first[0][4]


def test_a_checkpoint_may_be_saved_before_the_first_step(ranks: Ranks, tmp_path: Path) -> None:
    folder = str(tmp_path / "checkpoint")
    first = ranks.launch([["save", folder], ["train", 0, 2], ["state"]], stage=1, optimizer="sgd")
    again = ranks.launch([["train", 4, 6], ["load", folder], ["train", 0, 2], ["state"]], stage=1, optimizer="sgd")
    assert [outcomes[-1] for outcomes in again] == [outcomes[-1] for outcomes in first]


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        ("rich", "bf16_master"),
        pytest.param("rich", "fp32", marks=pytest.mark.exhaustive),
        pytest.param("plain", "fp32", marks=pytest.mark.exhaustive),
        pytest.param("plain", "bf16_master", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize(
    ("source", "target"),
    [((1, 2), (3, 3)), ((3, 3), (1, 2)), ((0, 2), (2, 2)), ((2, 3), (0, 1)), ((3, 1), (0, 4)), ((0, 4), (3, 2))],
    ids=str,
)
def test_another_stage_and_world_size_go_on_from_the_same_weights(
    source: tuple[int, int], target: tuple[int, int], precision: str, model: str, ranks: Ranks, tmp_path: Path
) -> None:
    folder, back = str(tmp_path / "checkpoint"), str(tmp_path / "back")
    settings = {"precision": precision, "model": model, "optimizer": "adam"}
    look: list[list[Any]] = [["weights"], ["train", 3, 5], ["values"]]
    (stage, count), (other_stage, other_count) = source, target
    first = ranks.launch([["train", 0, 3], ["save", folder], *look], stage=stage, ranks=count, **settings)
    actions = [["load", folder], ["save", back], *look]
    other = ranks.launch(actions, stage=other_stage, ranks=other_count, bucket_mb=0.002, seed=8, **settings)
    home = ranks.launch([["load", back], *look], stage=stage, ranks=count, seed=9, **settings)
    for outcomes in (*other, *home):
        assert outcomes[-3] == first[0][-3]
    if model == "plain":  # without local buffers and dropout, training is the same but for rounding
        tolerance = 1e-5 if precision == "fp32" else 2e-2
        assert other[0][-1] == pytest.approx(first[0][-1], abs=tolerance)
        assert home[0][-1] == first[0][-1]


def test_each_rank_writes_just_its_part_at_every_stage(ranks: Ranks, tmp_path: Path) -> None:
    sizes = []
    for stage in (0, 1, 2, 3):
        folder = tmp_path / str(stage)
        ranks.launch([["train", 0, 1], ["save", str(folder)]], stage=stage, model="large")
        sizes.append([path.stat().st_size for path in sorted(folder.glob("rank-*"))])
    weights_and_moments = 3 * 4 * (16 * 2000 + 2000 + 2000 * 16 + 16)
    for rank_sizes in sizes:
        assert rank_sizes == pytest.approx([weights_and_moments / 2] * 2, rel=0.1)
    assert sizes[0] == sizes[1] == sizes[2]


def test_buffers_come_back_to_the_rank_that_saved_them_or_are_those_of_rank_0(ranks: Ranks, tmp_path: Path) -> None:
    folder = str(tmp_path / "checkpoint")
    first = ranks.launch([["train", 0, 3], ["save", folder], ["buffers"]], model="rich")
    again = ranks.launch([["load", folder], ["buffers"]], model="rich", stage=2)
    three = ranks.launch([["load", folder], ["buffers"]], model="rich", ranks=3)
    assert first[0][2] != first[1][2]
    assert [outcomes[1] for outcomes in again] == [outcomes[2] for outcomes in first]
    assert [outcomes[1] for outcomes in three] == [first[0][2]] * 3


def test_the_loss_scale_comes_back(ranks: Ranks, tmp_path: Path) -> None:
    folder = str(tmp_path / "checkpoint")
    settings = {"precision": "amp_fp16", "stage": 2}
    ranks.launch([["set_loss_scale", 512.0], ["train", 0, 3], ["save", folder]], **settings)
    assert ranks.launch([["load", folder], ["loss_scale"]], **settings) == [[None, [512.0, 3]]] * 2
    assert ranks.launch([["load", folder], ["loss_scale"]], stage=2) == [[None, [1.0, 0]]] * 2


def test_weights_are_rounded_to_another_precision(ranks: Ranks, tmp_path: Path) -> None:
    folder = str(tmp_path / "checkpoint")
    actions = [["load", folder], ["weights"], ["train", 3, 4]]
    first = ranks.launch([["train", 0, 3], ["save", folder], ["weights"]], precision="bf16_master", stage=1)
    assert ranks.launch(actions, precision="bf16", stage=3)[0][1] == first[0][2]
    ranks.launch([["train", 0, 3], ["save", folder]], precision="bf16", stage=1)
    assert ranks.launch(actions, precision="bf16_master", stage=0)[0][0] is None


@pytest.mark.parametrize("name", ["rank-00000-of-00002.pt", SHARD])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_truncated_shard_is_rejected_by_its_name(
    name: str, count: int, copy: Path, rejection: Callable[..., str]
) -> None:
    size = (copy / name).stat().st_size
    with (copy / name).open("r+b") as file:
        file.truncate(size - 1)
    assert rejection(copy, ranks=count) == f"{name} has {size - 1} bytes, expected {size}"


def test_a_missing_shard_is_rejected_by_its_name(copy: Path, rejection: Callable[..., str]) -> None:
    (copy / SHARD).unlink()
    assert rejection(copy, ranks=3) == f"{SHARD} is missing from {copy}"


@pytest.mark.parametrize("stage", [0, 3])
def test_a_flipped_byte_is_rejected_with_the_name_of_the_file(
    stage: int, copy: Path, rejection: Callable[..., str]
) -> None:
    data = bytearray((copy / SHARD).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / SHARD).write_bytes(data)
    assert rejection(copy, stage=stage).startswith(f"{SHARD} is damaged: its SHA-256 is ")


def test_a_changed_digit_in_the_index_is_rejected(copy: Path, rejection: Callable[..., str]) -> None:
    text = (copy / "index.json").read_text()
    assert '"step": 2.0' in text
    (copy / "index.json").write_text(text.replace('"step": 2.0', '"step": 3.0'))
    assert rejection(copy) == "index.json is damaged: its contents do not have the SHA-256 that it states"


def test_a_folder_without_an_index_is_rejected(tmp_path: Path, copy: Path, rejection: Callable[..., str]) -> None:
    assert rejection(tmp_path / "nothing") == f"{tmp_path / 'nothing' / 'index.json'} is missing, expected a checkpoint"
    (copy / "index.json").write_text('{"version": 2')
    assert rejection(copy).startswith("index.json is not an index of format version 2: ")
    (copy / "index.json").write_text('{"version": 3, "sha256": ""}')
    assert rejection(copy) == "index.json has format version 3, expected 2"


@pytest.mark.parametrize("name", ["../rank-00001-of-00002.pt", "/etc/passwd", "rank-00007-of-00002.pt"])
def test_an_index_cannot_name_a_file_elsewhere(name: str, copy: Path, rejection: Callable[..., str]) -> None:
    shutil.copy(copy / SHARD, copy.parent / SHARD)
    rewrite_index(copy, lambda document: document["files"].update({name: document["files"].pop(SHARD)}))
    assert rejection(copy) == f"index.json names the file {name!r}, expected {SHARD}"


def test_a_checkpoint_of_another_model_is_rejected_by_parameter(copy: Path, rejection: Callable[..., str]) -> None:
    assert rejection(copy, model="wide", stage=3) == "parameter 0.weight has shape [20, 16], expected [24, 16]"
    assert rejection(copy, model="deep") == "parameter 3.bias is missing from the checkpoint"
    assert rejection(copy, model="frozen") == "parameter 0.weight is trained, expected frozen"
    assert rejection(copy, model="rich") == "parameter first.bias is missing from the checkpoint"
    assert rejection(copy, optimizer="sgd") == "index.json is of optimizer adam, expected sgd"


def test_an_element_that_is_in_no_file_or_in_two_is_rejected(copy: Path, rejection: Callable[..., str]) -> None:
    def move(by: int) -> None:
        def change(document: dict[str, Any]) -> None:
            pieces = [file["pieces"] for file in document["files"].values()]
            name = next(name for name in pieces[0] if name in pieces[1])
            max(piece[name] for piece in pieces)[0] += by

        rewrite_index(copy, change)

    for by in (1, -2):
        move(by)
        assert rejection(copy).startswith(f"{SHARD} continues with parameter ")
    rewrite_index(copy, lambda document: document["files"][SHARD]["pieces"].pop("0.weight"))
    assert "with parameter 0.weight at element 320, expected " in rejection(copy)


class Exploit:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_shard_is_not_run(copy: Path, tmp_path: Path, rejection: Callable[..., str]) -> None:
    with zipfile.ZipFile(copy / SHARD) as archive:
        contents = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(copy / SHARD, "w") as archive:
        for entry, data in contents.items():
            evil = pickle.dumps(Exploit(tmp_path / "touched"), protocol=2)
            archive.writestr(entry, evil if entry.endswith("data.pkl") else data)
    data = (copy / SHARD).read_bytes()
    replaced = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite_index(copy, lambda document: document["files"][SHARD].update(replaced))
    assert rejection(copy).startswith(f"{SHARD} is not a shard file: ")
    assert not (tmp_path / "touched").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_crash_before_the_index_leaves_the_earlier_checkpoint(ranks: Ranks, copy: Path) -> None:
    before = contents(copy)
    crashed = ranks.launch([["train", 0, 1], ["save", str(copy), "crash"]], stage=1)
    assert crashed[0] is None
    assert contents(copy) == before
    left = [path for path in copy.parent.iterdir() if path != copy]
    assert not any((path / "index.json").exists() for path in left)
    assert ranks.launch([["load", str(copy)], ["save", str(copy)]], stage=1) == [[None, None]] * 2
    assert list(copy.parent.iterdir()) == [copy]


def test_a_crash_leaves_nothing_where_nothing_was(ranks: Ranks, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    ranks.launch([["save", str(folder), "crash"]], stage=3)
    assert not folder.exists()


def test_a_rank_that_cannot_write_fails_the_save_on_all_ranks(ranks: Ranks, copy: Path) -> None:
    before = contents(copy)
    rank_outcomes = ranks.launch([["train", 0, 1], ["save", str(copy), "disk full"], ["train", 1, 2]], stage=1)
    reasons = {outcomes[1] for outcomes in rank_outcomes}
    assert len(reasons) == 1
    assert reasons.pop().startswith(f"{SHARD} could not be written: No space left on device (ENOSPC); ")
    assert contents(copy) == before
    assert list(copy.parent.iterdir()) == [copy]


@pytest.mark.parametrize("trouble", [None, "no exchange"])
def test_a_checkpoint_is_replaced_by_one_of_another_world_size(trouble: str | None, ranks: Ranks, copy: Path) -> None:
    saved = ranks.launch([["train", 0, 1], ["save", str(copy), trouble], ["weights"]], ranks=3, stage=2)
    names = [f"rank-0000{rank}-of-00003.pt" for rank in range(3)]
    assert sorted(path.name for path in copy.iterdir()) == ["index.json", *names]
    assert list(copy.parent.iterdir()) == [copy]
    assert ranks.launch([["load", str(copy)], ["weights"]])[0][1] == saved[0][2]


def test_a_folder_of_other_things_is_not_replaced(ranks: Ranks, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    rank_outcomes = ranks.launch([["save", str(tmp_path)], ["save", str(tmp_path / "thesis.tex")]])
    assert rank_outcomes[0][0] == f"{tmp_path / 'thesis.tex'} is not part of a checkpoint: {tmp_path} is not replaced"
    assert rank_outcomes[1][1] == f"{tmp_path / 'thesis.tex'} is a file, expected a checkpoint or nothing"
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("stage", [0, 2])
def test_a_checkpoint_within_a_step_is_rejected(stage: int, ranks: Ranks, copy: Path, tmp_path: Path) -> None:
    actions = [["backward", 0], ["save", str(tmp_path / "new")], ["load", str(copy)]]
    for outcomes in ranks.launch(actions, stage=stage):
        assert all("between steps" in message for message in outcomes[1:])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("source", "target"), [((1, "strided"), (3, "plain")), ((3, "plain"), (0, "strided"))], ids=str
)
def test_weights_of_other_strides_are_loaded_by_their_indices(
    source: tuple[int, str], target: tuple[int, str], ranks: Ranks, tmp_path: Path
) -> None:
    folder = str(tmp_path / "checkpoint")
    (stage, model), (other_stage, other_model) = source, target
    look: list[list[Any]] = [["values"], ["train", 3, 5], ["values"]]
    first = ranks.launch([["train", 0, 3], ["save", folder], *look], stage=stage, model=model)
    other = ranks.launch([["load", folder], *look], stage=other_stage, model=other_model, ranks=3, seed=8)
    assert [outcomes[0] for outcomes in other] == [None] * 3
    assert other[0][1] == first[0][2]
    assert other[0][3] == pytest.approx(first[0][4], abs=1e-5)
