"""The time of one collective among n ranks: latency per message and time per byte.

S is the size of the whole array in bytes, f = (n-1)/n, α the latency of one message in seconds and β the bandwidth in
bytes per second. A ring all-reduce takes 2(n-1)·α + 2f·S/β, reduce-scatter and all-gather take (n-1)·α + f·S/β
(shared FORMULAS, "Time"; Thakur, Rabenseifner and Gropp 2005). Deviations of a backend are noted with each formula.

A ring over H hosts has N hops, H of them between hosts. In a pass each part skips one hop, and the slowest part one
inside a host, if there is one: it crosses between hosts min(H, N-1) times. A rank sends the next part before the last
one has arrived. So a part takes the sum of its hops' latencies, as in NCCL's estimate of its own rings and trees
(``ncclTopoTuneModel`` in NCCL's src/graph/tuning.cc). The slowest hop passes one part after another. A pass takes the
longest of the two, and of a part that waits at the slowest hop before it goes around.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from analysis.projection.schedule import Seconds
from results.launches import Collective


@dataclass(frozen=True)
class LinkTime:
    """The cost of a message: ``alpha_s`` seconds, and ``s_per_byte`` seconds for each byte."""

    alpha_s: Seconds
    s_per_byte: Seconds


@dataclass(frozen=True)
class Fabric:
    """The network of ranks. ``inside`` joins the ranks of a host; ``between`` joins hosts, None for a single host."""

    inside: LinkTime
    between: LinkTime | None = None
    ranks_per_host: int | None = None
    """None: every rank has a link of its own, as in a sweep with one rank per host."""
    links_per_host: int = 1
    """Links like ``between`` that a host has. With as many as ranks, each rank has its own (rail-optimized)."""
    trees: bool = True
    """Whether NCCL uses a tree where that is faster than a ring."""
    eager: bool = True
    """Whether a rank sends on before its last message has arrived, as NCCL and TCP do; else each round takes α."""

    def hosts(self, ranks: int, stride: int = 1) -> int:
        """Hosts that a group spans whose members are so many ranks apart; 1 where all have links of their own."""
        if self.ranks_per_host is None or self.between is None:
            return 1
        return ceil(ranks / max(1, self.ranks_per_host // stride))

    def ring_s(self, ranks: int, size: float, stride: int = 1) -> Seconds:
        """Seconds in which a ring passes ``size`` bytes on, in ``ranks`` - 1 messages of 1/``ranks`` over each hop."""
        hosts, rounds, part = self.hosts(ranks, stride), ranks - 1, size / ranks
        if self.between is None or self.ranks_per_host is None or hosts == 1:
            return rounds * (self.inside.alpha_s + part * self.inside.s_per_byte)
        inside_s, between_s = part * self.inside.s_per_byte, part * self._shared(stride)
        if not self.eager:
            return rounds * (np.maximum(self.inside.alpha_s, self.between.alpha_s) + np.maximum(inside_s, between_s))
        crossings = min(hosts, rounds)
        waits = max(0, rounds - (crossings - 1) * max(1, self.ranks_per_host // stride) - 1)
        hop_s = self.inside.alpha_s + inside_s
        along_s = crossings * (self.between.alpha_s + between_s) + (rounds - crossings - waits) * hop_s
        along_s = along_s + waits * np.maximum(between_s, hop_s)
        over_one_s = rounds * between_s + self.between.alpha_s
        if ranks > hosts:
            over_one_s = np.maximum(over_one_s, rounds * inside_s + self.inside.alpha_s)
        return np.maximum(over_one_s, along_s)

    def slowest_s(self, ranks: int, size: float, stride: int = 1) -> Seconds:
        """Seconds in which the slowest hop of a ring or tree passes ``size`` bytes on."""
        inside_s = size * self.inside.s_per_byte
        return inside_s if self.hosts(ranks, stride) == 1 else np.maximum(inside_s, size * self._shared(stride))

    def _shared(self, stride: int) -> Seconds:
        """Seconds per byte of a ring's hop between hosts; as many rings as ``stride`` share the links of a host."""
        assert self.between is not None and self.ranks_per_host is not None
        return self.between.s_per_byte * min(stride, self.ranks_per_host) / self.links_per_host

    def tree_alpha_s(self, ranks: int, stride: int = 1) -> Seconds:
        """Latency from the leaves of NCCL's tree to its root: a chain inside a host, a binary tree among hosts."""
        hosts = self.hosts(ranks, stride)
        if self.ranks_per_host is None:
            return ceil(log2(ranks)) * self.inside.alpha_s
        if self.between is None or hosts == 1:
            return (ranks - 1) * self.inside.alpha_s
        return (ceil(ranks / hosts) - 1) * self.inside.alpha_s + ceil(log2(hosts)) * self.between.alpha_s

    def message(self, ranks: int, streams: float = 1.0) -> LinkTime:
        """The slowest message of a group while so many ranks of each host send to other hosts, each over one link."""
        return self._slowest(ranks, max(1.0, streams / self.links_per_host))

    def exchanged(self, ranks: int) -> LinkTime:
        """A message of an exchange, mean over its rounds: in round k each rank sends to the one k places ahead.

        Of the L ranks of a host, min(k, L, ranks - k) then send to other hosts.
        """
        if self.ranks_per_host is None or self.hosts(ranks) == 1:
            return self.inside
        rounds = np.arange(1, ranks)
        streams = np.minimum(np.minimum(rounds, ranks - rounds), self.ranks_per_host)
        return self._slowest(ranks, float(np.maximum(1.0, streams / self.links_per_host).mean()))

    def doubling(self, ranks: int) -> list[LinkTime]:
        """The messages of a binomial tree, by its rounds: in each, twice as many ranks as before have the array."""
        streams = [self._leaving(ranks, 2**step) for step in range(ceil(log2(ranks)))]
        return [self.message(ranks, most) if most else self.inside for most in streams]

    def _leaving(self, ranks: int, reach: int) -> int:
        """The most ranks of a host that send to another host, where each of the first ``reach`` sends so far ahead."""
        if self.ranks_per_host is None:
            return 0
        senders = np.arange(min(reach, ranks - reach))
        hosts = senders // self.ranks_per_host
        leaving = hosts[hosts != (senders + reach) // self.ranks_per_host]
        return int(np.bincount(leaving).max()) if len(leaving) else 0

    def _slowest(self, ranks: int, times: float) -> LinkTime:
        """A message that takes ``times`` the time of a link between hosts for its bytes, where the group spans two."""
        return self.inside if self.hosts(ranks) == 1 else self._across(times)

    def _across(self, times: float) -> LinkTime:
        assert self.between is not None
        s_per_byte = np.maximum(self.inside.s_per_byte, self.between.s_per_byte * times)
        return LinkTime(np.maximum(self.inside.alpha_s, self.between.alpha_s), s_per_byte)


def passes(kind: str, backend: str) -> int:
    """How often a rank passes the whole array on in messages of 1/N of it; 0 for other kinds."""
    reduce_scatter = 2 if backend == "gloo" else 1
    return {"all_reduce": 2, "reduce_scatter": reduce_scatter, "all_gather": 1, "all_to_all": 1}.get(kind, 0)


def collective_s(collective: Collective, backend: str, fabric: Fabric, stride: int = 1) -> Seconds:
    """Seconds that one of these collectives takes, in a group whose members are ``stride`` ranks apart.

    - gloo's reduce-scatter sends as much as an all-reduce (measured at the interface, docs/results).
    - gloo's broadcast and reduce are binomial trees; NCCL's are pipelined around a ring.
    - NCCL chooses between a ring and a tree for each all-reduce; the faster is taken.
    - In an exchange and in a binomial tree several ranks of a host send to others at once, and share its links.

    Links among the switches are never shared. Messages of a ring do not meet there, others may
    (docs/results/projection_against_simgrid.md).

    Raises ValueError for a kind without a formula.
    """
    ranks, size = collective.group_size, collective.size_bytes
    if ranks < 2 or collective.kind == "recv":
        return 0.0
    if collective.kind == "send":
        line = fabric.exchanged(ranks)
        return line.alpha_s + size * line.s_per_byte
    if collective.kind == "all_to_all":
        line = fabric.exchanged(ranks)
        return (ranks - 1) * (line.alpha_s + size / ranks * line.s_per_byte)
    if times := passes(collective.kind, backend):
        ring = times * fabric.ring_s(ranks, size, stride)
        if fabric.trees and backend == "nccl" and collective.kind == "all_reduce":
            return np.minimum(ring, 2 * (fabric.tree_alpha_s(ranks, stride) + fabric.slowest_s(ranks, size, stride)))
        return ring
    if collective.kind in ("broadcast", "reduce"):
        if backend == "nccl":
            return fabric.ring_s(ranks, 0.0) + fabric.slowest_s(ranks, size)
        return sum(each.alpha_s + size * each.s_per_byte for each in fabric.doubling(ranks))
    if collective.kind in ("gather", "scatter"):
        line = fabric.message(ranks)
        return (ranks - 1) * (line.alpha_s + size / ranks * line.s_per_byte)
    if collective.kind == "barrier":
        return ceil(log2(ranks)) * fabric.message(ranks).alpha_s
    raise ValueError(f"no formula for the time of {collective.kind}")
