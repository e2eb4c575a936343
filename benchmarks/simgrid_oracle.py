"""How far the projection's formulas are from a simulation of every message, by SimGrid (Casanova et al. 2014).

    python -m benchmarks.simgrid_oracle [--page FILE.md]

SimGrid shares the bandwidth of each link among the messages that cross it, and knows neither our formulas nor their
assumptions. It comes with Debian (python3-simgrid), or from PyPI, where it is compiled. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from math import ceil, log2
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from analysis.projection.fabric import Fabric, LinkTime, collective_s
from benchmarks.page import write_table
from results.launches import Collective

INSIDE_S, BETWEEN_S = 3e-6, 20e-6
"""Latency of a message within a host, and to another one."""
INSIDE, BETWEEN = 300e9, 25e9
"""Bytes per second of a rank within its host, and of one network card."""
PER_HOST = 8
RANKS = (16, 64)
SIZES = (2**20, 2**26)
"""Bytes of the whole array."""
PLAIN = ("network/model:CM02", "network/crosstraffic:0", "network/TCP-gamma:0", "contexts/factory:thread")
"""Bandwidth and latency as they are given, without SimGrid's fit to TCP over Ethernet."""


@dataclass(frozen=True)
class Topology:
    """Links that ranks share, and the fabric by which the projection describes them."""

    name: str
    fabric: Fabric
    build: Callable[[Any, int], list[Any]]
    """Makes a platform of so many ranks; returns a host of SimGrid for each."""


def link(zone: Any, name: str, bandwidth: float, latency_s: float) -> Any:
    return zone.create_split_duplex_link(name, bandwidth).set_latency(str(latency_s)).seal()


def apart(module: Any, ranks: int) -> list[Any]:
    """A card for each rank, on one switch."""
    zone = module.NetZone.create_star_zone("switch")
    hosts = []
    for rank in range(ranks):
        host = zone.create_host(f"r{rank}", "1Gf").seal()
        up = module.LinkInRoute(link(zone, f"l{rank}", BETWEEN, BETWEEN_S / 2), module.LinkInRoute.UP)
        zone.add_route(host.netpoint, None, None, None, [up], True)
        hosts.append(host)
    zone.seal()
    return hosts


def in_hosts(cards: int) -> Callable[[Any, int], list[Any]]:
    """Hosts of ``PER_HOST`` ranks on one switch, with so many cards; a message takes the card of whom it goes to."""

    def build(module: Any, ranks: int) -> list[Any]:
        zone = module.NetZone.create_full_zone("cluster")
        hosts = [zone.create_host(f"r{rank}", "1Gf").seal() for rank in range(ranks)]
        own = [link(zone, f"l{rank}", INSIDE, INSIDE_S / 2) for rank in range(ranks)]
        card = {
            (host, number): link(zone, f"c{host}.{number}", BETWEEN, (BETWEEN_S - INSIDE_S) / 2)
            for host, number in itertools.product(range(ranks // PER_HOST), range(cards))
        }
        up, down = module.LinkInRoute.UP, module.LinkInRoute.DOWN
        for source, target in itertools.permutations(range(ranks), 2):
            path = [(own[source], up), (own[target], down)]
            if source // PER_HOST != target // PER_HOST:
                number = target % PER_HOST % cards
                path[1:1] = [(card[source // PER_HOST, number], up), (card[target // PER_HOST, number], down)]
            route = [module.LinkInRoute(part, way) for part, way in path]
            zone.add_route(hosts[source].netpoint, hosts[target].netpoint, None, None, route, False)
        zone.seal()
        return hosts

    return build


def fat_tree(spines: int) -> Callable[[Any, int], list[Any]]:
    """Leaf switches of 8 ranks, each joined to so many spine switches by a link as fast as a rank's."""

    def build(module: Any, ranks: int) -> list[Any]:
        hosts: list[Any] = []

        def leaf(zone: Any, coordinates: list[int], number: int) -> tuple[Any, None]:
            del coordinates
            hosts.append(zone.create_host(f"r{number}", "1Gf").seal())
            return hosts[-1].netpoint, None

        parameters = module.FatTreeParams(2, [8, ranks // 8], [1, spines], [1, 1])
        callbacks = module.ClusterCallbacks(leaf, None, None)
        policy = module.Link.SharingPolicy.SPLITDUPLEX
        zone = module.NetZone.create_fatTree_zone("tree", None, parameters, callbacks, BETWEEN, BETWEEN_S / 4, policy)
        zone.seal()
        return hosts

    return build


CARD = LinkTime(BETWEEN_S, 1 / BETWEEN)
NVLINK = LinkTime(INSIDE_S, 1 / INSIDE)
TOPOLOGIES = (
    Topology("a card per rank, one switch", Fabric(CARD), apart),
    Topology("hosts of 8, one card each", Fabric(NVLINK, CARD, PER_HOST), in_hosts(1)),
    Topology(
        "hosts of 8, a card per rank (rails)",
        Fabric(NVLINK, CARD, PER_HOST, links_per_host=PER_HOST),
        in_hosts(PER_HOST),
    ),
    Topology("fat tree, 8 spines", Fabric(CARD), fat_tree(8)),
    Topology("fat tree, 2 spines", Fabric(CARD), fat_tree(2)),
)
"""Links of a fat tree have a quarter of the latency: most messages cross four."""


@dataclass(frozen=True)
class Message:
    """What a rank sends and receives in one round of a collective; it waits for both before the next."""

    to: int | None
    of: int | None
    size: float


def ring(rank: int, ranks: int, size: float, passes: int, first: int = 0) -> list[Message]:
    """The rounds of a ring that enters each host at its rank ``first``: every rank passes a part on."""
    order = [host + (first + local) % PER_HOST for host in range(0, ranks, PER_HOST) for local in range(PER_HOST)]
    place = order.index(rank)
    to, of = order[(place + 1) % ranks], order[place - 1]
    return [Message(to, of, size / ranks)] * (passes * (ranks - 1))


def exchange(rank: int, ranks: int, size: float) -> list[Message]:
    """Round k sends the part of the rank k places ahead to it, as native's exchange does."""
    return [Message((rank + k) % ranks, (rank - k) % ranks, size / ranks) for k in range(1, ranks)]


def binomial(rank: int, ranks: int, size: float) -> list[Message]:
    """A broadcast from rank 0, the ranks that have the array doubling in each round."""
    rounds = []
    for step in range(ceil(log2(ranks))):
        reach = 2**step
        if rank < reach and rank + reach < ranks:
            rounds.append(Message(rank + reach, None, size))
        elif reach <= rank < 2 * reach:
            rounds.append(Message(None, rank - reach, size))
    return rounds


RINGS = {"all_reduce": 2, "all_gather": 1}
"""How often each passes the whole array on."""
COLLECTIVES = (*RINGS, "exchange", "broadcast")


def rounds_of(kind: str, rank: int, ranks: int, size: float, first: int) -> list[Message]:
    """What a rank sends and receives; ``first`` is the ring's."""
    if kind in RINGS:
        return ring(rank, ranks, size, RINGS[kind], first)
    return exchange(rank, ranks, size) if kind == "exchange" else binomial(rank, ranks, size)


def predicted_s(kind: str, ranks: int, size: int, topology: Topology) -> float:
    """By the formula of the projection for ranks that wait for each message; rings only, as they are simulated."""
    backend = "nccl" if kind in RINGS else "gloo"
    fabric = replace(topology.fabric, trees=False, eager=False)
    if kind == "exchange":
        send = Collective("send", "uint8", size // ranks, ranks, 1)
        return (ranks - 1) * float(collective_s(send, backend, fabric))
    return float(collective_s(Collective(kind, "uint8", size, ranks, 1), backend, fabric))


def simulated_s(topology: Topology, kind: str, ranks: int, size: int) -> float:
    """By SimGrid, which lives once in a process."""
    import simgrid  # type: ignore[import-not-found]

    engine = simgrid.Engine(["oracle", "--log=root.threshold:error", *(f"--cfg={setting}" for setting in PLAIN)])
    hosts = topology.build(simgrid, ranks)
    rings = topology.fabric.links_per_host if kind in RINGS else 1

    def train(rank: int, ring_number: int) -> None:
        for number, message in enumerate(rounds_of(kind, rank, ranks, size / rings, ring_number)):
            under_way, received = [], []
            if message.to is not None:
                box = simgrid.Mailbox.by_name(f"{ring_number}:{rank}>{message.to}:{number}")
                under_way.append(box.put_async("", round(message.size)))
            if message.of is not None:
                place = number if kind != "broadcast" else sends_before(message.of, rank, ranks)
                box = simgrid.Mailbox.by_name(f"{ring_number}:{message.of}>{rank}:{place}")
                receive, content = box.get_async()
                under_way.append(receive)
                received.append(content)  # SimGrid writes to it
            simgrid.Comm.wait_all(under_way)

    for rank, host in enumerate(hosts):
        for number in range(rings):
            simgrid.Actor.create(f"r{rank}.{number}", host, train, rank, number)
    engine.run()
    return float(engine.clock)


def sends_before(rank: int, to: int, ranks: int) -> int:
    """The number of the round, among a rank's own, in which it broadcasts to another."""
    return [message.to for message in binomial(rank, ranks, 1)].index(to)


@dataclass(frozen=True)
class Case:
    topology: str
    kind: str
    ranks: int
    size: int
    simulated_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        return self.predicted_s / self.simulated_s - 1


def case(place: int, kind: str, ranks: int, size: int) -> Case:
    topology = TOPOLOGIES[place]
    ours = predicted_s(kind, ranks, size, topology)
    return Case(topology.name, kind, ranks, size, simulated_s(topology, kind, ranks, size), ours)


def markdown(cases: Sequence[Case]) -> str:
    lines = ["| topology | collective | ranks | size (MiB) | simulated (ms) | formula (ms) | difference |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for one in cases:
        lines.append(
            f"| {one.topology} | {one.kind} | {one.ranks} | {one.size / 2**20:.0f} | {1000 * one.simulated_s:.3f} "
            f"| {1000 * one.predicted_s:.3f} | {100 * one.error:+.1f} % |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simgrid_oracle", description=__doc__.split("\n")[0])
    parser.add_argument("--page", type=Path, help="write the table to this Markdown file, after its «## Table»")
    options = parser.parse_args(arguments)
    wanted = list(itertools.product(range(len(TOPOLOGIES)), COLLECTIVES, RANKS, SIZES))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        text = markdown(list(pool.map(case, *zip(*wanted, strict=True))))
    print(text)
    if options.page:
        write_table(options.page, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
