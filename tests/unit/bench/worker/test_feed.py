"""The DataLoader of a rank: which samples it reads, in which order, and how long its steps wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psutil
import pytest
import torch

from bench.job import LoaderSettings
from bench.worker.feed import Loaded
from bench.worker.loop import Share
from tests.undisturbed import undisturbed

CPU = torch.device("cpu")
READ_S = 0.02


class Indices:
    """A workload whose samples are their indices, which take a set time to read."""

    def __init__(self, read_s: float = 0.0) -> None:
        self.read_s = read_s

    def batch(self, indices: Sequence[int]) -> tuple[torch.Tensor]:
        time.sleep(self.read_s)
        return (torch.tensor(indices),)


def loaded(share: Share, workers: int, read_s: float = 0.0, prefetch: int = 2) -> Loaded:
    work: Any = Indices(read_s)
    return Loaded(work, share, LoaderSettings(workers, prefetch, pin_memory=False), 0, CPU)


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_read_their_shares_of_the_same_global_batches(workers: int) -> None:
    shares = [Share(rank, 2, 4, 2) for rank in range(2)]
    before = torch.random.get_rng_state()
    feeds = [loaded(share, workers) for share in shares]
    for step in range(3):
        read = [[batch[0].tolist() for batch in feed.take(step)] for feed in feeds]
        assert read == [list(map(list, share.micro_batches(step))) for share in shares]
    for feed in feeds:
        feed.close()
    assert torch.equal(torch.random.get_rng_state(), before)  # dropout draws what it draws without a loader
    assert not [child for child in psutil.Process().children() if child.name().startswith("bench data")]


def waits(workers: int, step_s: float, steps: int = 20) -> float:
    """Mean seconds that a step of ``step_s`` waits for a batch that takes ``READ_S`` to read."""
    feed = loaded(Share(0, 1, 4, 1), workers, READ_S)
    list(feed.take(0))
    time.sleep(5 * READ_S)  # workers read in advance meanwhile
    feed.drain()
    waited = 0.0
    for step in range(steps):
        began = time.perf_counter()
        list(feed.take(step))
        waited += time.perf_counter() - began
        time.sleep(step_s)
    feed.close()
    return waited / steps


def test_a_step_waits_as_long_as_its_batch_takes_to_read_where_no_worker_reads() -> None:
    def claim(wait_s: float) -> None:
        assert READ_S <= wait_s < 1.5 * READ_S

    undisturbed(lambda: waits(0, 0.0), claim)


def test_a_loader_alone_reads_what_its_workers_can() -> None:
    def rate() -> float:
        feed = loaded(Share(0, 1, 4, 1), 2, READ_S)
        try:
            return feed.alone_per_s()
        finally:
            feed.close()

    def claim(per_s: float) -> None:
        assert 0.7 < per_s / (2 * 4 / READ_S) <= 1.05

    undisturbed(rate, claim)


def test_a_step_waits_for_what_one_worker_cannot_read_meanwhile() -> None:
    def claim(wait_s: float) -> None:
        assert wait_s == pytest.approx(READ_S / 2, rel=0.4)

    undisturbed(lambda: waits(1, READ_S / 2), claim)


def test_no_step_waits_where_workers_read_faster_than_it_computes() -> None:
    def claim(wait_s: float) -> None:
        assert wait_s < 0.2 * READ_S

    undisturbed(lambda: waits(2, 2 * READ_S), claim)
