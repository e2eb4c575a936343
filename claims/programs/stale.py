"""Workers of a parameter server that wait for each other, and such that do not: what they reach, and when.

The engine is this suite's; the last process is the server. Steps take a set time, asleep, so that workers do not
compete for cores.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store
from torch.nn.utils import vector_to_parameters

from bench.engines.base import Batch, RankContext, ServerContext
from bench.engines.parameter_server.server import Server
from bench.engines.parameter_server.worker import Worker
from bench.engines.spec import EngineSpec
from claims.programs.averaging import network
from workloads.data import digits

RANK_BATCH = 16
IMAGES = 1797
DIVERGED = 1e6
"""How many times as long as at the start weights have become, where training has diverged."""
Report = dict[str, Any]


@dataclass(frozen=True)
class Meeting:
    """The processes of a program, the last of them the server."""

    rank: int
    workers: int
    group: Any

    @classmethod
    def of(cls, rank: int, ranks: int) -> Meeting:
        return cls(rank, ranks - 1, dist.new_group(list(range(ranks - 1))))

    @property
    def serves(self) -> bool:
        return self.rank == self.workers

    def train(self, name: str, mode: str, lr: float, module: nn.Module, steps: Callable[[Worker], None]) -> Report:
        """Trains ``module`` by ``steps`` of an engine; what the server counted, where this is the server."""
        spec = EngineSpec(
            stage=0,
            world_size=self.workers,
            device="cpu",
            backend="gloo",
            optimizer="sgd",
            lr=lr,
            options={"mode": mode, "servers": 1, "staleness": None},
        )
        store = PrefixStore(name, _get_default_store())
        if self.serves:
            return dataclasses.asdict(Server(spec, ServerContext(0, 1, store)).run())
        worker = Worker()
        worker.setup(module, [], spec, RankContext(self.rank, self.workers, torch.device("cpu"), store))
        dist.barrier(self.group)
        steps(worker)
        worker.teardown()
        return {}


@dataclass(frozen=True)
class Pace:
    """How a worker trains: steps, and the seconds that it sleeps in each."""

    steps: int
    step_s: float

    @classmethod
    def of(cls, meeting: Meeting, mode: str, steps: int, step_s: float, slow: int) -> Pace:
        """The last worker takes ``steps`` of ``slow`` times ``step_s``. So many are they for all in sync mode; else the
        others take as many as they have the time for."""
        if meeting.rank == meeting.workers - 1:
            return cls(steps, slow * step_s)
        return cls(steps if mode == "sync" else slow * steps, step_s)


@dataclass
class Descent:
    """A worker that trains on digits, and remembers when its gradients were applied and what weights it then had."""

    meeting: Meeting
    pace: Pace
    seed: int
    began_s: float = 0.0
    done_s: list[float] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)

    def __call__(self, worker: Worker) -> None:
        source = digits(self.seed)
        self.began_s = time.perf_counter()
        for step in range(self.pace.steps):
            first = RANK_BATCH * (step * self.meeting.workers + self.meeting.rank)
            time.sleep(self.pace.step_s)
            batch = flattened(source.batch(range(first, first + RANK_BATCH)))
            worker.forward_backward(batch, cross_entropy, sync=True)
            worker.optimizer_step()
            self.done_s.append(time.perf_counter())
            self.weights.append(worker.parameters.clone())

    def losses(self) -> list[float]:
        """On all images, with each of the weights."""
        module, every = network(torch.float32), flattened(digits(self.seed).batch(range(IMAGES)))
        losses = []
        with torch.no_grad():
            for content in self.weights:
                vector_to_parameters(content, module.parameters())
                losses.append(float(cross_entropy(module, every)))
        return losses


def cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    images, labels = batch
    return F.cross_entropy(module(images), labels)


def flattened(batch: Batch) -> Batch:
    images, labels = batch
    return images.flatten(1), labels


def descents(
    rank: int, ranks: int, mode: str, lrs: list[float], steps: int, step_s: float, slow: int, seeds: int
) -> list[Report]:
    """Trains on digits at each learning rate, from each seed, at the pace of ``Pace.of``. Each worker reports when its
    gradients had been applied, and worker 0 the loss with the weights that it then had."""
    meeting = Meeting.of(rank, ranks)
    reports = []
    for seed in range(seeds):
        for lr in lrs:
            trained = Descent(meeting, Pace.of(meeting, mode, steps, step_s, slow), seed)
            meeting.train(f"{seed}/{lr}", mode, lr, network(torch.float32, seed), trained)
            reports.append(
                {
                    "lr": lr,
                    "began_s": trained.began_s,
                    "done_s": trained.done_s,
                    "losses": trained.losses() if rank == 0 else [],
                }
            )
    return reports


class Square(nn.Module):
    """Half the square of its weight, whose gradient is the weight: the quadratic of curvature 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self) -> Tensor:
        return self.weight.square().sum() / 2


def half_square(module: nn.Module, batch: Batch) -> Tensor:
    del batch
    loss: Tensor = module()
    return loss


@dataclass
class Fall:
    """A worker that descends the quadratic until it diverges, and remembers its weight after each step."""

    module: Square
    pace: Pace
    weights: list[float] = field(default_factory=list)

    def __call__(self, worker: Worker) -> None:
        for _ in range(self.pace.steps):
            time.sleep(self.pace.step_s)
            worker.forward_backward((), half_square, sync=True)
            worker.optimizer_step()
            self.weights.append(float(self.module.weight.detach()))
            if abs(self.weights[-1]) > DIVERGED:
                break


def quadratics(rank: int, ranks: int, mode: str, lrs: list[float], steps: int, step_s: float) -> list[Report]:
    """The quadratic at each learning rate: a worker's weight after each of its steps, from 1. The server counts how
    many updates old gradients were."""
    meeting = Meeting.of(rank, ranks)
    reports = []
    for lr in lrs:
        module = Square()
        trained = Fall(module, Pace(steps, step_s))
        counted = meeting.train(str(lr), mode, lr, module, trained)
        reports.append({"lr": lr, "weights": trained.weights, "delays": counted.get("delays", {})})
    return reports
