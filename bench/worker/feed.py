"""The batches of a rank's steps: from a pool that exists before the clock starts, or from a DataLoader that reads them.

The DataLoader is torch's own. Its sampler yields the samples of the rank's share of each global batch, so that ranks
train on the same samples as the single process of parity. Worker processes are forked from the rank, belong to its
process group, and end with it.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from bench.engines.base import Batch
from bench.engines.batches import map_tensors
from bench.job import EngineJob, LoaderSettings, StepsJob
from bench.launch.prctl import name_process
from bench.worker.batches import batches, share_of, workload
from bench.worker.loop import Feed, Share, StepBatches
from workloads.base import Workload

MAX_FOLDER = 70
"""Characters of a folder in which a Unix socket can be: a path has 108, and multiprocessing adds 32."""
ALONE_S = 1.0
"""How long a loader is timed by itself, once each of its processes has read two batches."""


class Pool:
    """Prepared batches that steps cycle through."""

    waits_per_step = 0

    def __init__(self, steps: list[list[Batch]]) -> None:
        self._steps = steps

    def take(self, step: int) -> list[Batch]:
        return self._steps[step % len(self._steps)]

    def drain(self) -> None:
        return

    def alone_per_s(self) -> None:
        return None

    def close(self) -> None:
        return


class Unread:
    """The micro-batches of one step that ``read`` returns, each when the iteration reaches it, as in training.

    A DataLoader fills its queue again only when a batch is taken. It would read the rest of a step that is taken at
    once while nothing trains.
    """

    def __init__(self, count: int, read: Callable[[], Batch]) -> None:
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self._count):
            yield self._read()


class Loaded:
    """Batches that a DataLoader reads, each step's new ones."""

    def __init__(self, work: Workload, share: Share, loader: LoaderSettings, seed: int, device: torch.device) -> None:
        self.waits_per_step, self._device = share.accumulate, device
        self._pinned = loader.pin_memory
        self._workers, self._micro_batch = loader.workers, share.rank_batch // share.accumulate
        self._ahead = loader.workers * (loader.prefetch or 0)
        self._first: list[Batch] = []
        dataset: Dataset[Any] = Samples(work)
        self._loader = DataLoader(
            dataset,
            batch_sampler=MicroBatches(share),
            num_workers=loader.workers,
            prefetch_factor=loader.prefetch if loader.workers else None,
            pin_memory=loader.pin_memory,
            collate_fn=as_read,
            worker_init_fn=partial(begin_worker, loader.folder),
            multiprocessing_context="fork" if loader.workers else None,
            generator=torch.Generator().manual_seed(seed),  # else it would draw from the generator of dropout
        )
        self._read = iter(self._loader)

    def take(self, step: int) -> StepBatches:
        return Unread(self.waits_per_step, self._next)

    def _next(self) -> Batch:
        batch = self._first.pop() if self._first else next(self._read)
        return map_tensors(batch, lambda entry: entry.to(self._device, non_blocking=self._pinned))

    def drain(self) -> None:
        """Drops as many batches as can lie ready, one after another, and keeps the one that follows.

        Workers read in advance while ranks wait for each other or warm up. Steps would use that up first, and
        too slow a loader would be seen late.
        """
        if not self._ahead:
            return
        self._first.clear()
        for _ in range(self._ahead):
            next(self._read)
        self._first.append(next(self._read))

    def alone_per_s(self) -> float:
        """Samples per second that it reads while nothing trains: a whole round of its processes, again and again."""
        self.drain()
        self._first.clear()
        round_of_all = max(1, self._workers)
        samples, began, elapsed_s = 0, time.perf_counter(), 0.0
        while elapsed_s < ALONE_S:
            for _ in range(2 * round_of_all):
                next(self._read)
            samples += 2 * round_of_all * self._micro_batch
            elapsed_s = time.perf_counter() - began
        return samples / elapsed_s

    def close(self) -> None:
        del self._read  # ends its processes


class Samples(Dataset[Any]):
    """The samples of a workload; a micro-batch is read at once."""

    def __init__(self, work: Workload) -> None:
        self._work = work

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self._work.batch(indices)


class MicroBatches(Sampler[list[int]]):
    """The global sample indices of each micro-batch of a share, step after step, without an end."""

    def __init__(self, share: Share) -> None:
        self._share = share

    def __iter__(self) -> Iterator[list[int]]:
        for step in itertools.count():
            yield from map(list, self._share.micro_batches(step))


def as_read(batch: Batch) -> Batch:
    """A batch is collated already."""
    return batch


def begin_worker(folder: str, number: int) -> None:
    """Names the process, and keeps the sockets by which it hands over its tensors out of the machine's folder.

    A process that is killed leaves them there.
    """
    name_process(f"bench data {number}")
    if 0 < len(folder) <= MAX_FOLDER and Path(folder).is_dir():
        tempfile.tempdir = folder


def loaded(job: EngineJob[Any], rank: int, device: torch.device) -> Loaded:
    """The DataLoader of a rank. Raises ValueError without ``job.loader``."""
    if job.loader is None:
        raise ValueError("the job has no loader")
    return Loaded(workload(job.workload), share_of(job, rank), job.loader, job.workload.seed, device)


def feed_of(job: StepsJob[Any], rank: int, device: torch.device) -> Feed:
    """As ``data`` sets it."""
    if job.loader is not None:
        return loaded(job, rank, device)
    work, share = workload(job.workload), share_of(job, rank)
    steps = min(job.batch_pool, job.warmup + job.steps)
    return Pool([batches(job, work, share, step, device) for step in range(steps)])
