"""What the system refuses is explained in words, with the path and the limit."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import re
import resource
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from bench import causes
from bench.engines.native.checkpoint.index import CheckpointError
from bench.launch.channel import Channel
from bench.launch.forkserver import server
from bench.launch.forkserver.rank_main import describe_error
from bench.launch.forkserver.templates import Templates
from bench.messages import job_message
from bench.saved import save
from results.shown import printable
from tests.conftest import MakeCell

FULL = Path("/dev/full")


def test_a_full_disk_is_named_with_the_file_system() -> None:
    with pytest.raises(OSError) as caught:
        save({"weights": torch.zeros(10_000)}, FULL)
    described = describe_error(caught.value)
    assert described["message"].startswith("No space left on device (ENOSPC): /dev/full; ")
    assert described["message"].endswith(" MiB are free on the file system of /dev/full")


def test_what_is_saved_can_be_loaded(tmp_path: Path) -> None:
    save({"weights": torch.arange(3)}, tmp_path / "file.pt")
    assert torch.load(tmp_path / "file.pt", weights_only=True)["weights"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "Read-only file system (EROFS): /place/file"),
        (errno.EACCES, "Permission denied (EACCES): /place/file"),
        (errno.EDQUOT, "Disk quota exceeded (EDQUOT): /place/file; "),
        (errno.ENFILE, "Too many open files in system (ENFILE): /place/file; at most "),
        (errno.ENOMEM, "Cannot allocate memory (ENOMEM): /place/file"),
    ],
)
def test_an_error_of_the_system_has_its_path_and_limit(number: int, words: str) -> None:
    message = causes.in_words(OSError(number, os.strerror(number), "/place/file"))
    assert message.startswith(words)


def test_a_limit_of_processes_is_named_with_its_value_and_how_many_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causes.limits, "read", lambda: causes.limits.GroupLimits(by_name={"pids.max": "9"}))
    monkeypatch.setattr(causes.resource, "getrlimit", lambda _: (7, 7))
    words = re.search(
        r"at most 9 .*control group \(pids.max\); at most 7 .*per user \(ulimit -u\): (\d+) run, and",
        causes.in_text("libgomp: Thread creation failed: Resource temporarily unavailable"),
    )
    assert words and int(words[1]) >= len(os.listdir("/proc/self/task"))


def test_an_error_that_was_raised_for_the_systems_names_both() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/place/file")
        except OSError as error:
            raise CheckpointError("rank0.pt could not be written") from error
    except CheckpointError as error:
        message = describe_error(error)["message"]
    assert message.startswith("rank0.pt could not be written: No space left on device (ENOSPC): /place/file; ")


def test_an_error_that_quotes_the_systems_words_has_the_limit() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    message = describe_error(RuntimeError("epoll_create: Too many open files"))["message"]
    assert message.endswith(f"Too many open files (EMFILE); at most {most} open files per process (ulimit -n)")
    assert describe_error(RuntimeError("the model is broken"))["message"] == "the model is broken"


def test_an_error_that_was_handled_before_is_not_blamed() -> None:
    try:
        try:
            (Path("/nowhere") / "file").read_text()
        except FileNotFoundError:
            raise ValueError("no such dataset")  # noqa: B904
    except ValueError as error:
        assert describe_error(error)["message"] == "no such dataset"


def launched_without_forks(message: dict[str, Any], outcome: Connection) -> None:
    """Sends the result, and how many descriptors stay open. A launch ends all children of the process that makes it."""

    def fail() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    ours, theirs = socket.socketpair()
    with (
        mock.patch.object(os, "fork", fail),
        mock.patch.object(resource, "getrlimit", lambda limit: (17, 17)),
        mock.patch.object(server, "fork_obstacle", lambda: None),
        ours,
        theirs,
    ):
        lifeline = Channel(theirs)
        open_before = len(os.listdir("/proc/self/fd"))
        result = server.launched(message, lifeline, Templates(lifeline))
        outcome.send((result, len(os.listdir("/proc/self/fd")) - open_before))


@pytest.mark.parametrize("factory", ["workloads.mlp:MLP", "tests.faults:Faulty"])
def test_too_few_processes_are_named_and_leave_no_descriptor_open(
    make_cell: MakeCell, timing_job: Callable[..., Any], factory: str
) -> None:
    job = timing_job(make_cell(workload={"name": "mine", "factory": factory}))
    received, sent = multiprocessing.Pipe(duplex=False)
    with contextlib.closing(received), contextlib.closing(sent):
        process = multiprocessing.get_context("forkserver").Process(
            target=launched_without_forks, args=(job_message(job), sent)
        )
        process.start()
        process.join()
        assert received.poll(), "the launch raised, see stderr"
        result, left_open = received.recv()
    assert left_open == 0
    assert (result.status, result.ranks) == ("failed", [])
    where = (
        "rank 0 could not be started (0 of 1 ranks were): " if "mlp" in factory else "the fork server could not start "
    )
    assert where in result.reason and "Resource temporarily unavailable (EAGAIN); " in result.reason
    assert "at most 17 processes and threads per user (ulimit -u)" in result.reason


def test_a_terminal_obeys_nothing_of_what_a_rank_wrote() -> None:
    assert printable("\x1b[1;31mred\x1b[0m\ttab\r\nline \x1b]0;title\x07end\x00\x1b\x9b") == (
        "red\ttab\nline end\ufffd\ufffd\ufffd"
    )
