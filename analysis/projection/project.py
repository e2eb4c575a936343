"""The answer to "what will more GPUs give": a band per configuration and world size, and where scaling stops to pay.

What cannot be determined is not printed: world sizes beyond a factor of what was measured, and more ranks than the
measured machine has, without a network that was measured or described.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from analysis.projection.curve import ScalingCurve, curves
from analysis.projection.fabric import Fabric, LinkTime
from analysis.projection.fit import Describe, undescribed
from analysis.projection.held_out import LEVEL, NORMAL, HeldOut, Projected, Projector, why_unchecked
from analysis.projection.least_squares import Floats
from analysis.projection.measured_links import measured_line
from analysis.projection.memory import peak_bytes
from results.record import Record

MAX_FACTOR = 64
"""World sizes up to so many times the largest measured one are projected."""
PAYS_OFF = 1.5
"""Doubling the ranks pays off while it raises throughput by this factor; 2 is ideal."""


@dataclass(frozen=True)
class Links:
    """A network that a person described."""

    between: LinkTime | None = None
    """Latency and seconds per byte from host to host; None: as measured."""
    inside_s_per_byte: float | None = None
    ranks_per_host: int | None = None
    links_per_host: int = 1


@dataclass(frozen=True)
class ProjectionRow:
    """One configuration at one world size."""

    projected: Projected
    throughput_per_s: float
    efficiency: float
    """Against the smallest measured world size."""
    throughput_band: tuple[float, float]
    efficiency_band: tuple[float, float]
    """The 90 % bands of both, by that of the step."""
    peak_bytes: int | None
    fits: bool | None
    """Whether the peak is within the limit; None where either is unavailable."""


@dataclass(frozen=True)
class Knee:
    """Up to where doubling the ranks of a configuration pays off."""

    label: str
    ranks: int
    """The world size from which no further doubling raises throughput by ``PAYS_OFF``, among those projected."""
    bottleneck: str
    """The part that grows most with the next doubling; empty where doubling pays off within all that is projected."""
    low: int
    """The lower end of a 90 % band of ``ranks``, by what the measurements leave open and the model's own error."""
    high: int
    dips: dict[int, str] = field(default_factory=dict)
    """Smaller world sizes from which doubling does not pay off, though a later one does, and the part that grows."""


@dataclass
class Projection:
    """Configurations that share a machine, a network and an engine."""

    title: str
    unit: str
    rows: dict[int, list[ProjectionRow]] = field(default_factory=dict)
    """By world size, the fastest first."""
    knees: list[Knee] = field(default_factory=list)
    checked: list[HeldOut] = field(default_factory=list)
    why_unchecked: str = ""
    """Why no measured world size was predicted from others; empty where one was."""
    timed: LinkTime | None = None
    """Links that were timed by themselves."""
    not_projected: list[str] = field(default_factory=list)
    """World sizes without a projection, and why."""


def project(
    records: Sequence[Record], targets: Sequence[int], links: Links | None = None, memory_bytes: float | None = None
) -> tuple[list[Projection], list[str]]:
    """Projections of a sweep to these world sizes, and one line for each configuration that has none."""
    links = links or Links()
    usable, rejected = curves(records)
    groups: dict[object, list[ScalingCurve]] = defaultdict(list)
    for curve in usable:
        groups[curve.fabric_key].append(curve)
    targets = sorted(set(targets))
    return [
        _group(group, targets, links, memory_bytes, timed_links(records, group[0])) for group in groups.values()
    ], rejected


def timed_links(records: Sequence[Record], curve: ScalingCurve) -> LinkTime | None:
    """Links that were timed by themselves; not where hops inside a host and between hosts were timed together."""
    return None if curve.spans_hosts else measured_line(records, curve)


def _group(
    group: list[ScalingCurve], targets: list[int], links: Links, memory_bytes: float | None, timed: LinkTime | None
) -> Projection:
    projector = Projector(group, Fabric(timed) if timed else None)
    describe = partial(described, links=links)
    record = group[0].any
    projection = Projection(group[0].fabric_key[0], record.model.unit if record.model else "unit")
    projection.checked, projection.timed = projector.checked, timed
    projection.why_unchecked = "" if projector.checked else why_unchecked(group)
    for ranks in targets:
        allowed = []
        for place, curve in enumerate(group):
            if reason := why_not(curve, ranks, links):
                projection.not_projected.append(f"{ranks} GPUs, {curve.label}: {reason}")
            else:
                allowed.append(_row(projector, place, ranks, describe, memory_bytes))
        if allowed:
            projection.rows[ranks] = sorted(allowed, key=lambda row: (row.fits is False, -row.throughput_per_s))
    projection.knees = [
        knee_of(projector, place, _doubled(curve, max(targets), links), describe) for place, curve in enumerate(group)
    ]
    projection.not_projected = merged(projection.not_projected)
    return projection


def described(fitted: Fabric, links: Links) -> Fabric:
    """The fabric with what a person described in place of what was fitted."""
    if links.between is None and links.ranks_per_host is None and links.inside_s_per_byte is None:
        return fitted
    own = fitted.inside
    inside = own if links.inside_s_per_byte is None else LinkTime(own.alpha_s, links.inside_s_per_byte)
    return replace(
        fitted,
        inside=inside,
        between=links.between or fitted.between or own,
        ranks_per_host=links.ranks_per_host or fitted.ranks_per_host or 1,
        links_per_host=links.links_per_host,
    )


def why_not(curve: ScalingCurve, ranks: int, links: Links) -> str:
    """Why a world size has no projection; empty if it has one."""
    largest = max(curve.sizes)
    if ranks > MAX_FACTOR * largest:
        return f"more than {MAX_FACTOR} times the largest measured world size, {largest}"
    if curve.is_strong and curve.batch % (ranks * curve.micro_batches):
        setting, other = ("batch_tokens", "batch_tokens") if curve.batch_tokens else ("scaling=strong", "batch_size")
        return (
            f"{setting} shares a batch of {curve.batch} samples evenly; valid: divisors of "
            f"{curve.batch // curve.micro_batches}, or another {other}"
        )
    if curve.shard_size and ranks % curve.shard_size:
        return f"shard_size={curve.shard_size} does not divide the world size; valid: its multiples"
    if curve.is_emulated or curve.spans_hosts or links.between is not None:
        return ""
    if ranks <= max(largest, curve.host_devices or 0):
        return ""
    return "no network between hosts was measured; describe it with --link, --latency and --gpus-per-host"


def _row(projector: Projector, place: int, ranks: int, describe: Describe, memory_bytes: float | None) -> ProjectionRow:
    curve, projected = projector.curves[place], projector.at(place, ranks, describe)
    base = curve.sizes[0]
    throughput = curve.units_per_step(ranks) / projected.step_s
    own = curve.units_per_step(base) / curve.step_s(base).value
    peak = peak_bytes(curve, ranks)
    fits = None if peak is None or memory_bytes is None else peak <= memory_bytes
    band = (curve.units_per_step(ranks) / projected.high_s, curve.units_per_step(ranks) / projected.low_s)
    ideal = own * ranks / base
    return ProjectionRow(
        projected, throughput, throughput / ideal, band, (band[0] / ideal, band[1] / ideal), peak, fits
    )


def _doubled(curve: ScalingCurve, most: int, links: Links) -> list[int]:
    """World sizes from the smallest measured one, each twice the one before, that have a projection."""
    sizes = [curve.sizes[0]]
    while 2 * sizes[-1] <= most and not why_not(curve, 2 * sizes[-1], links):
        sizes.append(2 * sizes[-1])
    return sizes


def knee_of(projector: Projector, place: int, sizes: Sequence[int], describe: Describe = undescribed) -> Knee:
    """The knee of the curve at ``place`` among ``sizes``, each of which is twice the one before."""
    curve = projector.curves[place]
    projected_s = [projector.at(place, ranks, describe).step_s for ranks in sizes]
    shared = 1 / 2 if curve.is_strong else 1.0
    pays = _pays(np.array(projected_s), shared)
    drawn = np.array([projector.drawn_s(place, ranks, describe) for ranks in sizes])
    causes = []
    for (before, before_s), (after, after_s) in pairwise(zip(sizes, drawn, strict=True)):
        fitted, draw = projector.median_draw(after_s / before_s)
        small, large = (fitted.parts(place, ranks, draw, describe) for ranks in (before, after))
        causes.append(large.grown(small, shared))
    last = int(_last_paid(pays))
    errors = np.array([projector.own_deviation(place, ranks) for ranks in sizes])
    ends = _last_paid(_pays(drawn[:, :, None] * np.exp(errors[:, None, None] * NORMAL), shared))
    low, high = np.quantile(ends, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf").astype(int)
    return Knee(
        curve.label,
        sizes[last],
        causes[last] if last < len(causes) else "",
        sizes[min(low, last)],
        sizes[max(high, last)],
        {sizes[at]: causes[at] for at in range(last) if not pays[at]},
    )


def _pays(steps_s: Floats, shared: float) -> NDArray[np.bool_]:
    """For each doubling, whether throughput rises by ``PAYS_OFF``; a rank's share of the batch is ``shared`` of it.

    ``steps_s`` has a row for each world size, in seconds; the result has one row less.
    """
    return np.asarray(2 * shared * steps_s[:-1] / steps_s[1:] >= PAYS_OFF)


def _last_paid(pays: NDArray[np.bool_]) -> NDArray[np.int_]:
    """Doublings up to the last one that pays off, over the first axis."""
    doublings = np.arange(1, len(pays) + 1).reshape(-1, *[1] * (pays.ndim - 1))
    return np.asarray(np.max(pays * doublings, axis=0, initial=0))


def merged(lines: Sequence[str]) -> list[str]:
    """Lines with one reason as one line."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        where, _, reason = line.partition(": ")
        by_reason[reason].append(where.partition(",")[0])
    return [f"{', '.join(dict.fromkeys(places))}: {reason}" for reason, places in by_reason.items()]
