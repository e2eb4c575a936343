"""The hosts of a cluster: their health, the links between them, and what each saw of the launches."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.metrics import hosts
from analysis.metrics.measured import Measured
from analysis.metrics.scaling_loss import columns, parts_of
from analysis.metrics.step_parts import WORDS
from analysis.report.model.content import DEFINITIONS, Content
from analysis.report.model.section import ListItem, Points, Section, Table, Value, numbers, settings, table, words
from analysis.report.sections.scaling_loss import points
from analysis.text import units
from results.health import Health, HostHealth, HostLink
from results.record import world_size

GBIT = 8e-9
MOST_LINKS = 30
"""Links that a report shows, the slowest."""


def section(content: Content) -> Section:
    """A row per host; nothing for sweeps on one machine."""
    names = hosts.names(content.records)
    health = next((record.health for record in content.records if record.health), None) or Health([])
    checked = {host.name: (place, host) for place, host in enumerate(health.hosts)}
    names += [name for name in checked if name not in names]
    interfaces = {
        str(host.get("name")): host for record in content.records for host in record.environment.get("hosts") or []
    }
    rows = []
    for name in names:
        place, host = checked.get(name, (-1, HostHealth(name)))
        rows.append([*_described(name, interfaces.get(name, {})), *_health(host, place, health), *_seen(content, name)])
    columns_ = [
        *settings(["host"]),
        *words("interface", "cores"),
        *numbers("peak per device (GFLOP/s)", "clock offset (ms)", "sends (Gbit/s)", "receives (Gbit/s)"),
        *numbers("latency (µs)", "free disk (GiB)", "free /dev/shm (GiB)", "background load", "throttled (s)"),
    ]
    problems = [
        ListItem(problem, about=host.name) for host in health.hosts for problem in (*host.problems, *_left_out(host))
    ]
    not_measured = f"Peaks and links were not measured: {health.not_measured}." if health.not_measured else ""
    return Section(
        "Hosts",
        "hosts",
        prose=[not_measured] if not_measured else [],
        lists=[Points(problems, "Problems")] if problems else [],
        tables=[*table(columns_, rows), *_links(health)] if names else [],
        folded="details",
        notes=[
            "Measured before the sweep: peak of matrix products in fp32, all devices at once; sends, receives and "
            "latency: a host's best link. Clock offset: relative to the coordinator, with its bound.",
            f"Background load: share of the CPU time that other processes took, mean and largest launch. {DEFINITIONS}",
        ]
        if names
        else [],
    )


def _described(name: str, host: dict[str, object]) -> list[Value]:
    cores = host.get("cores")
    return [Value(name), Value(str(host.get("interface") or "")), Value(f"{cores:g}" if units.is_finite(cores) else "")]


def _left_out(host: HostHealth) -> list[str]:
    return ["left out of the sweep (cluster.leave_out_below)"] if host.is_left_out else []


def _health(host: HostHealth, place: int, health: Health) -> list[Value]:
    sends = [link.bytes_per_s for link in health.links if link.source == place]
    receives = [link.bytes_per_s for link in health.links if link.target == place]
    latencies = [link.latency_s for link in health.links if link.source == place]
    rates, offset, bound = host.flops_per_s, host.clock_offset_s, host.clock_bound_s
    spread = f"[{units.number(min(rates) / 1e9)}, {units.number(max(rates) / 1e9)}]" if len(rates) > 1 else ""
    return [
        Value(units.number(sum(rates) / len(rates) / 1e9) if rates else units.MISSING, spread),
        Value(units.MISSING) if offset is None else Value(f"{1e3 * offset:+.3f}", f"± {1e3 * (bound or 0.0):.3f}"),
        Value(units.number(max(sends) * GBIT) if sends else units.MISSING),
        Value(units.number(max(receives) * GBIT) if receives else units.MISSING),
        Value(units.number(min(latencies) * 1e6) if latencies else units.MISSING),
        *(
            Value(units.MISSING if free is None else units.number(free / 2**30))
            for free in (host.disk_free_bytes, host.shared_memory_free_bytes)
        ),
    ]


def _seen(content: Content, name: str) -> list[Value]:
    seen = hosts.seen(content.records, name)
    largest = f"at most {units.percent(seen.largest_share)}" if seen.launches else ""
    return [
        Value(units.percent(seen.mean_share), largest),
        Value(units.number(seen.throttled_s) if seen.launches else units.MISSING),
    ]


def _links(health: Health) -> list[Table]:
    slowest = sorted(health.links, key=lambda link: link.bytes_per_s)[:MOST_LINKS]
    rows = [_link(link, health) for link in slowest]
    return table([*settings(["from", "to"]), *numbers("bandwidth (Gbit/s)", "latency (µs)")], rows)


def _link(link: HostLink, health: Health) -> list[Value]:
    return [
        Value(health.hosts[link.source].name),
        Value(health.hosts[link.target].name),
        Value(units.number(link.bytes_per_s * GBIT)),
        Value(units.number(link.latency_s * 1e6)),
    ]


def across(content: Content) -> Section:
    """A row for each configuration on several hosts: what crossing hosts costs, and of what that is made."""
    cells = content.where(lambda cell: hosts.count(cell.record) > 1)
    parts = parts_of(*(cell.record for cell in cells))
    return Section(
        "Within a host and across hosts",
        "across-hosts",
        tables=content.cell_table(
            cells,
            lambda cell: _across(content, cell, parts),
            numbers("hosts", "efficiency within a host", "across hosts"),
            numbers(*(f"lost: {WORDS.get(part, part)}" for part in parts)),
            words("sent per host (MiB per step)"),
        ),
        folded="details",
        notes=[
            "Scaling efficiency is the product of both: within, of the most ranks that one host ran; across, "
            "throughput per rank relative to these. Lost: parts of 1 - efficiency across hosts, in % of a rank's time.",
            "Sent: counted at each host's interface, without traffic within a host. Parts need measure=full.",
        ],
    )


def _across(content: Content, cell: Measured, parts: Sequence[str]) -> list[Value]:
    ranks_by_host = "+".join(str(host.get("ranks")) for host in hosts.used(cell.record))
    sent = "; ".join(
        f"{host.get('name')} {units.mib(sent_bytes)}"
        for host, sent_bytes in zip(hosts.used(cell.record), hosts.sent_by_host(cell.record), strict=False)
    )
    entry = cell.across
    losses: dict[str, float] = {}
    within, crossing = Value(units.MISSING, "no one-host partner"), Value(units.MISSING)
    if entry:
        whole = entry.interval
        crossing = Value(units.percent(whole.value), units.interval(whole.low, whole.high, 100))
        partner = next(one for one in content.measured if one.record is entry.partner)
        inside = partner.efficiency.interval.value if partner.efficiency else None
        within = Value(units.percent(inside), f"{units.counted(partner.world_size, 'rank')}")
        if world_size(cell.record) > partner.world_size:
            losses = columns(cell.record, entry.partner, entry.interval.value)
    return [
        Value(str(hosts.count(cell.record)), ranks_by_host),
        within,
        crossing,
        *(Value(points(losses.get(f"efficiency_loss_{part}", float("nan")))) for part in parts),
        Value(sent or units.MISSING),
    ]
