"""The result of a health check on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bench.preflight.judge import bits, flops, micro
from results.health import Health, HostHealth
from results.shown import printable
from terminal.tables import bare, console

MOST_LINKS = 30
"""Links that are printed, the slowest; the records have all."""


def show(health: Health) -> bool:
    """Prints the hosts, the links and a line on stderr for each problem; whether there is none."""
    out = console()
    table = bare(("host", "peak", "clock offset", "disk free", "/dev/shm free"))
    for host in health.hosts:
        table.add_row(
            printable(host.name),
            peak(host),
            clock(host),
            *map(size, (host.disk_free_bytes, host.shared_memory_free_bytes)),
        )
    out.print(table)
    if health.links:
        links = bare(("from", "to", "bandwidth", "latency"))
        for link in sorted(health.links, key=lambda link: link.bytes_per_s)[:MOST_LINKS]:
            names = (printable(health.hosts[place].name) for place in (link.source, link.target))
            links.add_row(*names, bits(link.bytes_per_s), micro(link.latency_s))
        out.print(links)
    lines = list(problems(health))
    for line in lines:
        print(f"preflight: {line}", file=sys.stderr)
    return not lines


def summary(health: Health) -> str:
    """All hosts in a line, such as ``3 hosts: 21 to 22 GFLOP/s per device; links 8.1 to 9.5 Gbit/s, 52 to 80 µs``."""
    parts = [f"{len(health.hosts)} host{'' if len(health.hosts) == 1 else 's'}"]
    if rates := [rate for host in health.hosts for rate in host.flops_per_s]:
        parts.append(f"{between([flops(min(rates)), flops(max(rates))])} per device")
    if health.links:
        rates = [link.bytes_per_s for link in health.links]
        delays = [link.latency_s for link in health.links]
        speed, delay = between([bits(min(rates)), bits(max(rates))]), between([micro(min(delays)), micro(max(delays))])
        parts.append(f"links {speed}, {delay}")
    return "; ".join(parts)


def problems(health: Health) -> Iterator[str]:
    """A line for each problem, beginning with the host's name."""
    if health.not_measured:
        yield f"peaks and links were not measured: {health.not_measured}"
    for host in health.hosts:
        for problem in host.problems:
            yield f"{host.name}: {problem}"
        if host.is_left_out:
            yield f"{host.name} is left out (cluster.leave_out_below)"


def between(ends: list[str]) -> str:
    return " to ".join(dict.fromkeys(ends))


def peak(host: HostHealth) -> str:
    if not host.flops_per_s:
        return "not measured"
    return between([flops(min(host.flops_per_s)), flops(max(host.flops_per_s))])


def clock(host: HostHealth) -> str:
    if host.clock_offset_s is None or host.clock_bound_s is None:
        return "no answer"
    return f"{host.clock_offset_s * 1e3:+.3f} ms ± {host.clock_bound_s * 1e3:.3f}"


def size(free_bytes: int | None) -> str:
    return "unknown" if free_bytes is None else f"{free_bytes / 2**30:.1f} GiB"
