"""A server: a slice of the parameters, its optimizer, and what it counted. One thread, which sleeps until spoken to."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bench.engines.base import ServerContext
from bench.engines.optimizers import FUSED, build_optimizer
from bench.engines.parameter_server.clocks import Clocks
from bench.engines.parameter_server.protocol import Kind, Workers
from bench.engines.spec import EngineSpec
from results.launches import ServerCounts


@dataclass
class Tally:
    """Counts of a server from the first push on, warm-up included. Bytes are payload: no JOIN, no headers."""

    gradients_received: int = 0
    gradients_applied: int = 0
    updates: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    delays: Counter[int] = field(default_factory=Counter)
    """Gradients by delay: the updates that were made between their worker's pull and their own."""


class Server:
    """One server of a launch."""

    def __init__(self, spec: EngineSpec, context: ServerContext) -> None:
        self.spec = spec
        self.index = context.index
        self.averages = spec.options["mode"] == "sync"
        bound = {"sync": 0, "async": math.inf, "bounded": spec.options["staleness"]}[spec.options["mode"]]
        self.clocks = Clocks(spec.world_size, bound)
        self.workers = Workers(context.store, context.index, context.servers, spec.world_size)
        self.tally = Tally()
        self.pulled_at = dict.fromkeys(range(spec.world_size), 0)
        """How many updates there had been when each worker was last given the parameters."""

    def run(self) -> ServerCounts:
        """Serves until the last worker has left."""
        self._begin()
        while self.clocks.present:
            header = self.workers.next_header()
            if header.kind == Kind.LEAVE:
                self.clocks.leave(header.worker)
            else:
                self._take(header.worker)
            if self.averages and self.clocks.waiting and self.clocks.present < self.spec.world_size:
                raise RuntimeError("engine.mode=sync: a worker left while another waits for the mean of all gradients")
            self._answer(self.clocks.let_go())
        return self.counted()

    def _begin(self) -> None:
        """Waits for all workers, and starts them and itself from worker 0's parameters."""
        headers = [self.workers.next_header() for _ in range(self.spec.world_size)]
        sizes = {header.elements for header in headers}
        if len(sizes) > 1:
            raise RuntimeError(f"workers differ in the size of their parameters: {sorted(sizes)} elements of a slice")
        self.parameters = nn.Parameter(torch.empty(sizes.pop()))
        self.incoming = torch.empty(self.spec.world_size if self.averages else 1, self.parameters.numel())
        fused = {"fused": True} if self.spec.optimizer in FUSED else {"foreach": False}
        self.optimizer = build_optimizer(self.spec, [self.parameters], **fused)
        self.workers.receive(0, self.parameters.data)
        self.workers.answer(self.pulled_at, self.parameters.data)

    def _take(self, worker: int) -> None:
        """Receives a gradient, and makes the update that it completes."""
        place = self.incoming[worker if self.averages else 0]
        self.workers.receive(worker, place)
        self.tally.gradients_received += 1
        self.tally.bytes_in += place.nbytes
        self.clocks.tick(worker)
        if not self.averages:
            self._update(place, [worker])
        elif self.clocks.waiting == self.spec.world_size:
            # Added up by rank, not by arrival: the same run gives the same bits.
            self._update(self.incoming.mean(0), range(self.spec.world_size))

    def _update(self, gradient: Tensor, pushed_by: range | list[int]) -> None:
        self.tally.delays.update(self.tally.updates - self.pulled_at[worker] for worker in pushed_by)
        self.parameters.grad = gradient
        if self.spec.clip_norm is not None:
            nn.utils.clip_grad_norm_([self.parameters], self.spec.clip_norm)
        self.optimizer.step()
        self.parameters.grad = None
        self.tally.updates += 1
        self.tally.gradients_applied += len(pushed_by)

    def _answer(self, workers: list[int]) -> None:
        self.workers.answer(workers, self.parameters.data)
        self.tally.bytes_out += len(workers) * self.parameters.nbytes
        self.pulled_at.update(dict.fromkeys(workers, self.tally.updates))

    def counted(self) -> ServerCounts:
        delays = self.tally.delays
        optimizer = [entry for state in self.optimizer.state.values() for entry in state.values()]
        return ServerCounts(
            server=self.index,
            gradients_received=self.tally.gradients_received,
            gradients_applied=self.tally.gradients_applied,
            updates=self.tally.updates,
            bytes_in=self.tally.bytes_in,
            bytes_out=self.tally.bytes_out,
            delays={str(delay): delays[delay] for delay in sorted(delays)},
            max_clock_gap=self.clocks.largest_lead,
            state_bytes={
                "params": self.parameters.nbytes,
                "grads": self.incoming.nbytes,
                "optimizer": sum(entry.nbytes for entry in optimizer if isinstance(entry, Tensor)),
            },
        )
