"""Training of ranks over links, simulated message by message: step times with a known cause, for tests of projection.

It shares no code with ``analysis.projection``. Each rank has a clock, each layer a time with noise of its own. A
collective is N-1 (or 2(N-1)) rounds of messages, begins when every rank has issued it, and they run one after another.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from results.launches import Collective, Launch
from results.record import Record
from tests.fakes import cell, launch

MIB = 1 << 20


@dataclass(frozen=True)
class Cluster:
    """Ranks of one model on links of one kind."""

    layers: int = 8
    forward_s: float = 0.002
    backward_s: float = 0.004
    layer_bytes: int = MIB
    alpha_s: float = 2e-4
    bytes_per_s: float = 1.25e8
    noise: float = 0.01
    """Deviation of a layer's time, as a share of it."""
    overlap: bool = True
    update_s: float = 0.001
    contention: float = 0.0
    """Share of its speed that computation loses while a message is in flight."""
    trees: bool = False
    """Whether an all-reduce uses a tree where that is faster, as NCCL's can."""
    per_host: int | None = None
    """Ranks of a host; None: each has a link of its own."""
    between_alpha_s: float = 1e-3
    between_bytes_per_s: float = 5e7
    """Of a message to the next host, over the link that a host's ranks share."""
    strong: bool = False
    """Whether layers take 1/N of their time among N ranks."""
    fixed: float = 0.0
    """Share of a layer's time that does not shrink so."""

    def rounds_s(self, ranks: int, rounds: int) -> float:
        """So many rounds of messages of 1/N of a layer; each rank sends on once a message has arrived."""
        part_bytes = self.layer_bytes / ranks
        if self.per_host is None or ranks <= self.per_host:
            return sum(self.alpha_s + part_bytes / self.bytes_per_s for _ in range(rounds))
        slow = [(rank + 1) % self.per_host == 0 for rank in range(ranks)]
        hop_s = [self.between_alpha_s if one else self.alpha_s for one in slow]
        send_s = [part_bytes / (self.between_bytes_per_s if one else self.bytes_per_s) for one in slow]
        arrived, free = [0.0] * ranks, [0.0] * ranks
        for _ in range(rounds):
            free = [max(arrived[rank], free[rank]) + send_s[rank] for rank in range(ranks)]
            arrived = [free[rank - 1] + hop_s[rank - 1] for rank in range(ranks)]
        return max(arrived)

    def step_s(self, stage: int, ranks: int, generator: random.Random) -> tuple[float, float]:
        """The time of one step, and of the update within it."""
        clocks, channel = [0.0] * ranks, 0.0
        gather, reduce = self.rounds_s(ranks, ranks - 1), self.rounds_s(ranks, ranks - 1)
        all_reduce = self.rounds_s(ranks, 2 * (ranks - 1))
        if self.trees and ranks > 1:
            depth = (ranks - 1).bit_length()
            all_reduce = min(all_reduce, 2 * depth * self.alpha_s + 2 * self.layer_bytes / self.bytes_per_s)

        def compute(seconds: float) -> list[float]:
            starts = list(clocks)
            for rank in range(ranks):
                work = max(0.0, generator.gauss(seconds, self.noise * seconds))
                contended = min((1 - self.contention) * max(0.0, channel - clocks[rank]), work)
                clocks[rank] += contended / (1 - self.contention) + work - contended
            return starts

        def send(issued: list[float], seconds: float, *, wait: bool) -> float:
            nonlocal channel
            if ranks == 1:
                return max(issued)
            channel = max(channel, *issued) + seconds
            if wait or not self.overlap:
                clocks[:] = [max(clock, channel) for clock in clocks]
            return channel

        shared = self.fixed + (1 - self.fixed) / ranks if self.strong else 1.0
        for seconds, is_backward in ((shared * self.forward_s, False), (shared * self.backward_s, True)):
            ready = send(list(clocks), gather, wait=True) if stage == 3 else 0.0
            for layer in range(self.layers):
                clocks[:] = [max(clock, ready) for clock in clocks]
                starts = list(clocks)
                if stage == 3 and self.overlap and layer + 1 < self.layers:
                    ready = send(starts, gather, wait=False)
                elif stage == 3 and layer + 1 < self.layers:
                    compute(seconds)
                    if is_backward:
                        send(list(clocks), reduce, wait=True)
                    ready = send(list(clocks), gather, wait=True)
                    continue
                compute(seconds)
                if is_backward:
                    send(list(clocks), reduce if stage else all_reduce, wait=False)
        end = max(*clocks, channel) if ranks > 1 else max(clocks)
        update_s = self.update_s / (ranks if stage else 1)
        after = update_s + (self.layers * gather if stage in (1, 2) and ranks > 1 else 0.0)
        return end + after, after

    def record(self, stage: int, ranks: int, launches: int = 6, steps: int = 12, seed: int = 0) -> Record:
        """A record of that training; ranks have a link each. Layers sleep where nothing contends with them."""
        rounds = []
        for at in range(launches):
            generator = random.Random(f"{seed} {stage} {ranks} {at}")
            times = [self.step_s(stage, ranks, generator) for _ in range(steps)]
            fake = launch(at, [[step for step, _ in times]] * ranks)
            samples = [
                replace(
                    rank,
                    forward_backward_s=[step - after for step, after in times],
                    optimizer_s=[after for _, after in times],
                )
                for rank in fake.ranks
            ]
            rounds.append(replace(fake, ranks=samples))
        network = {"kind": "lab" if self.per_host is None else "none", "rate": "1gbit", "delay": None, "hosts": None}
        record = cell(stage, ranks, rounds, verdicts=[])
        record.config["network"] = network
        if self.per_host and ranks > self.per_host:
            record.resolved["hosts"] = [{"ranks": self.per_host}] * (ranks // self.per_host)
        if self.strong:
            record.config |= {"scaling": "strong", "batch_size": 64}
        elif not self.contention:
            record.config["workload"] = {
                "name": "calibrated",
                "per": "micro_batch",
                "layers": self.layers,
                "forward_s": self.forward_s,
                "backward_s": self.backward_s,
            }
        record.resolved["backend"] = "nccl"
        record.resolved["engine"] = {"overlap": self.overlap}
        record.collectives = self.collectives(stage, ranks)
        return record

    def collectives(self, stage: int, ranks: int) -> list[Collective]:
        """What rank 0 would have counted."""
        elements = self.layer_bytes // 4
        counts = {0: {"all_reduce": 1}, 3: {"all_gather": 2, "reduce_scatter": 1}}
        kinds = counts.get(stage, {"reduce_scatter": 1, "all_gather": 1})
        return [Collective(kind, "float32", elements, ranks, times * self.layers) for kind, times in kinds.items()]


def slower(launch: Launch, factor: float) -> Launch:
    """The launch with forward and backward ``factor`` times as long, as on a disturbed machine."""
    ranks = [
        replace(rank, forward_backward_s=[factor * seconds for seconds in rank.forward_backward_s])
        for rank in launch.ranks
    ]
    return replace(launch, ranks=ranks)
