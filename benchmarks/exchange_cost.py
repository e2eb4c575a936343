"""What native's exchange costs among many ranks, against a ring and trees, by the projection's formulas.

    python -m benchmarks.exchange_cost

Native reduces a bucket of stages 1 to 3 in N-1 rounds, each with one peer. Up to all ranks of a host send to others
at once, and share the host's link; a ring crosses it once. Nothing is measured: the links are described.
"""

from __future__ import annotations

from analysis.projection.fabric import Fabric, LinkTime, collective_s
from results.launches import Collective

MIB = 1 << 20
RANKS = (8, 64, 512)
BUCKETS = (1 * MIB, 25 * MIB)
NETWORKS = {
    "one link per rank, 10 µs, 100 Gbit/s": Fabric(LinkTime(1e-5, 8e-11)),
    "8 ranks per host, 10 µs, 100 Gbit/s": Fabric(LinkTime(5e-6, 1 / 300e9), LinkTime(1e-5, 8e-11), 8),
    "one link per rank, 1 ms, 1 Gbit/s": Fabric(LinkTime(1e-3, 8e-9)),
}
"""Latency of a message and rate of a link."""


def exchange_s(size: int, ranks: int, fabric: Fabric) -> float:
    """Seconds of native's reduce-scatter: N-1 sends of 1/N of the bucket, one after another."""
    part = Collective("send", "float32", size // 4 // ranks, ranks, 1)
    return (ranks - 1) * float(collective_s(part, "nccl", fabric))


def ring_s(size: int, ranks: int, fabric: Fabric) -> float:
    """Seconds of a reduce-scatter around a ring."""
    return float(collective_s(Collective("reduce_scatter", "float32", size // 4, ranks, 1), "nccl", fabric))


def all_reduce_s(size: int, ranks: int, fabric: Fabric) -> float:
    """Seconds of an all-reduce, around a ring or along trees, whichever is faster."""
    return float(collective_s(Collective("all_reduce", "float32", size // 4, ranks, 1), "nccl", fabric))


def rows() -> list[tuple[str, int, int, float, float, float]]:
    """Network, bytes of a bucket, ranks, and the seconds of the exchange, the ring and the all-reduce."""
    return [
        (name, size, ranks, *(cost(size, ranks, fabric) for cost in (exchange_s, ring_s, all_reduce_s)))  # type: ignore[misc]
        for name, fabric in NETWORKS.items()
        for size in BUCKETS
        for ranks in RANKS
    ]


def main() -> None:
    print("| network | bucket (MiB) | ranks | exchange (ms) | ring (ms) | all-reduce (ms) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, size, ranks, *seconds in rows():
        print(f"| {name} | {size // MIB} | {ranks} | {' | '.join(f'{1000 * one:.3g}' for one in seconds)} |")


if __name__ == "__main__":
    main()
