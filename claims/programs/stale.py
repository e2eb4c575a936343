"""Workers of a parameter server that wait for each other, and such that do not, on a quadratic.

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
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

from bench.engines.base import Batch, RankContext, ServerContext
from bench.engines.parameter_server.server import Server
from bench.engines.parameter_server.worker import Worker
from bench.engines.spec import EngineSpec

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
    steps: int
    step_s: float
    """That it sleeps in each."""
    weights: list[float] = field(default_factory=list)

    def __call__(self, worker: Worker) -> None:
        for _ in range(self.steps):
            time.sleep(self.step_s)
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
        trained = Fall(module, steps, step_s)
        counted = meeting.train(str(lr), mode, lr, module, trained)
        reports.append({"lr": lr, "weights": trained.weights, "delays": counted.get("delays", {})})
    return reports
