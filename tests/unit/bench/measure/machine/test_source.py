"""The code in a record: a dirty tree can be had again from it, and other code is distinguished from the same."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.measure.machine import environment, source
from bench.measure.machine.torch_build import Machine
from results import differences
from results.record import Record
from results.source import Source


def git(folder: Path, *arguments: str, given: bytes | None = None) -> None:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "diff.noprefix=true")
    subprocess.run(["git", "-C", str(folder), *settings, *arguments], check=True, input=given, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    for name in ("bench/worker/loop.py", "conf/config.yaml", "docs/page.md"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("one\ntwo\n")
    (folder / "uv.lock").write_text("lock\n")
    git(folder.parent, "init", "--quiet", str(folder))
    git(folder, "config", "diff.noprefix", "true")  # a person's own taste
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_a_clean_tree_has_a_commit_and_no_patch(checkout: Path) -> None:
    code = source.collect(["stage=2", "gpus=2"], checkout)
    assert len(code.commit) == 40 and (code.patch, code.patch_bytes, code.untracked) == ("", 0, {})
    assert code.lock_digest == hashlib.sha256(b"lock\n").hexdigest()
    assert code.described() == f"commit {code.commit[:10]}" and not code.patch_cut


def test_a_dirty_tree_can_be_had_again_from_the_record(checkout: Path, tmp_path: Path) -> None:
    (checkout / "bench/worker/loop.py").write_text("one\n2\nthree\n")
    (checkout / "bench/new.py").write_text("x\n")
    (checkout / "notes.txt").write_text("no code\n")
    code = source.collect([], checkout)
    assert code.untracked == {"bench/new.py": hashlib.sha256(b"x\n").hexdigest()}
    assert code.described().endswith("with changes")
    again = tmp_path / "again"
    git(tmp_path, "clone", "--quiet", str(checkout), str(again))
    git(again, "apply", "-", given=code.patch.encode())
    assert (again / "bench/worker/loop.py").read_text() == "one\n2\nthree\n"
    (again / "bench/new.py").write_text("x\n")
    assert source.collect([], again).digest == code.digest


def test_a_long_patch_is_cut_at_a_line_and_says_so(checkout: Path) -> None:
    (checkout / "bench/worker/loop.py").write_text("".join(f"line {number} of many\n" for number in range(20_000)))
    code = source.collect([], checkout)
    assert code.patch_cut and code.patch_bytes > 2 * source.MOST_PATCH_BYTES
    assert source.MOST_PATCH_BYTES - 100 < len(code.patch) <= source.MOST_PATCH_BYTES
    assert code.patch.endswith("of many\n")


def test_only_files_that_measure_make_another_code(checkout: Path) -> None:
    before = source.collect([], checkout)
    (checkout / "docs/page.md").write_text("other words\n")
    assert source.collect([], checkout).digest == before.digest
    (checkout / "conf/config.yaml").write_text("two\n")
    assert source.collect([], checkout).digest != before.digest


def test_a_folder_that_is_no_checkout_still_has_a_digest(checkout: Path) -> None:
    digest = source.collect([], checkout).digest
    (checkout / ".git").rename(checkout / "elsewhere")
    code = source.collect([], checkout)
    assert (code.digest, code.commit) == (digest, "")
    assert code.described() == f"files {digest[:10]}, no commit"


def test_the_command_is_kept_without_folders_and_trackers(checkout: Path) -> None:
    words = ["-m", "stage=0,1", "tracking.uri=http://me:secret@host", "hydra.sweep.dir=/home/me", "+tracking.x=1"]
    assert source.collect(words, checkout).command == ["-m", "stage=0,1"]


def recorded(code: Source | None, around: dict[str, Any]) -> Record:
    return Record("cell", "sweep", {}, {}, around, source=code)


def test_other_code_and_other_packages_are_distinguished_from_the_same() -> None:
    code, around = Source("aa", commit="1" * 40), {"python": "3.11", "packages": {"torch": "1"}, "kernel": "a"}
    assert differences.code_differences(recorded(code, around), code, around | {"kernel": "b"}) == ""
    other = dataclasses.replace(code, digest="bb", commit="2" * 40)
    assert (
        differences.code_differences(recorded(code, around), other, around)
        == "commit 1111111111 then, commit 2222222222 now"
    )
    newer = around | {"packages": {"torch": "2"}}
    assert differences.code_differences(recorded(code, around), code, newer) == "packages.torch: 1 then, 2 now"
    assert differences.code_differences(recorded(None, around), code, around).startswith("code that was not recorded")


def test_variables_are_kept_by_name_without_secrets_and_folders() -> None:
    variables = environment.allowed(
        {
            **{"OMP_NUM_THREADS": "2", "HOME": "/home/me", "NCCL_API_KEY": "x", "DS_TOKEN": "y", "AWS_SECRET": "z"},
            **{"LD_PRELOAD": "/usr/lib/x86/libtcmalloc.so.4", "CUDA_HOME": "/home/me/cuda-13", "NCCL_ALGO": "Ring"},
        }
    )
    assert variables == {
        "CUDA_HOME": ".../cuda-13",
        "LD_PRELOAD": ".../libtcmalloc.so.4",
        "NCCL_ALGO": "Ring",
        "OMP_NUM_THREADS": "2",
    }


def test_the_environment_says_what_every_version_is() -> None:
    machine = Machine("2.15.0+cu", 0, "2.30", 1.0, cuda="13.2", cudnn="92600", cpu_capability="AVX512")
    facts = environment.collect(machine, {"OMP_NUM_THREADS": "1"}, Source("aa", commit="1" * 40, patch="x"))
    wanted = {"torch": "2.15.0+cu", "cuda": "13.2", "cudnn": "92600", "nccl": "2.30", "cpu_capability": "AVX512"}
    assert facts.items() >= wanted.items()
    assert {"torch", "torchvision", "hydra-core", "mlflow", "numpy"} <= set(facts["packages"])
    assert facts["git"] == {"commit": "1" * 40, "dirty": True, "files": "aa"}
    assert facts["kernel"] and facts["cores"] >= 1 and (facts["logical_cores"] or 0) >= facts["cores"]


def test_a_checkout_that_git_rejects_is_not_taken_for_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    code = source.collect([], checkout)
    assert not code.commit and "dubious ownership" in code.not_recorded
    assert str(checkout.parent) not in code.not_recorded
    assert environment.not_measured(code)["commit and patch of the code"] == code.not_recorded


def test_without_a_checkout_nothing_is_missing_and_without_git_the_reason_is_recorded(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source.collect([], tmp_path).not_recorded == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source.collect([], checkout).not_recorded == "git is not installed"


def test_a_file_without_a_digest_is_named(checkout: Path) -> None:
    (checkout / "conf/gone.yaml").symlink_to("nowhere")
    assert source.collect([], checkout).not_recorded == "gone.yaml: No such file or directory"
