"""Latency, bandwidth and compute time from the measured step times of curves that share a fabric.

The parameters are log α and log 1/β of the fabric, the log odds of contention, and for each curve the log of a step
without communication and of the factor of its collectives. Links between hosts have an α and a β of their own where
measured world sizes span hosts. The deviation between ranks is a parameter where no rank was measured alone.

A maximum a posteriori estimate: residuals are differences of log step time over their standard error; the factor is
near 1 (log deviation 0.2). The other priors are stated below. Links that were timed by themselves
(``workload=collectives``) have a log deviation of 0.3.

What measurements leave open is in the draws: estimates from data and priors that are moved at random by their own
deviations (randomized maximum likelihood; Oliver, He and Reynolds 1996). Where computation hides all communication
and nothing slows it, α and β differ between draws as the prior does, and the band of a projection says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import log

import numpy as np

from analysis.projection.curve import ScalingCurve
from analysis.projection.fabric import Fabric, LinkTime
from analysis.projection.least_squares import Floats, minimized
from analysis.projection.model import Costs, Parts, StepModel

STARTS = tuple(product((1e-6, 1e-5, 1e-4, 1e-3, 1e-2), (1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6), (0.01, 0.4)))
"""Latency in seconds, seconds per byte, and contention, where estimates may start."""
DRAWS = 100
SEED = 0
RIVAL, APART, MINIMA = 8.0, 1.0, 3
"""Costs above the best within which another minimum begins draws, too; logarithms between their links; and how many."""
ITERATIONS = (30, 12)
"""Of the estimate, and of the draws, which start from it."""
WIDE = 3.0
"""Deviation of the logarithm of what is free."""
LATENCY = {"nccl": 1.5}
"""Deviation of log α by backend, else ``WIDE``: 90 % between a twelfth of the center and twelve times the center."""
INSIDE = {"nccl": LinkTime(3.4e-6, 1e-10)}
RDMA_S = 14e-6
BETWEEN = {"nccl": LinkTime(37e-6, 1e-10)}
"""The center of the prior by backend. By its own estimates a message of NCCL takes 3.4 µs over NVLink, and ``RDMA_S``
to another host (``hwLat`` in src/graph/tuning.cc: ring, protocol Simple). Over sockets it takes about as long as one of
``TCP``: 37 µs is between. 10 GB/s is free by ``WIDE``."""
TCP = LinkTime(1e-4, 1e-9)
"""The center for every other backend, whose messages go through the kernel, and for emulated links."""
CONTENTION = (log(0.05 / 0.95), 2.0)
"""Center and deviation of the log odds of contention: 90 % between 0.002 and 0.59. Calculon's systems have 0.02 for
InfiniBand and 0.15 for NVLink."""
SPREAD = (log(0.02), 1.0)
"""Center and deviation of the logarithm of the deviation between ranks: 90 % between 0.4 and 10 %. GPUs of one cluster
and type differ by 8 %, at most by 22 % (Sinha et al., SC 2022), which is four deviations."""
FACTOR = 0.2
TIMED = 0.3
"""Deviation of the logarithm of latency and bandwidth that were timed by themselves: a step's collectives differ."""
FIXED = (0.05, 1.0)
"""Fixed share of compute with strong scaling, and the deviation of its logarithm."""
LIKELY = 2.0
"""A fit whose cost is higher by this much is 7 times less likely than the best, exp(2), and left out."""
STEP = 1e-4
"""Change of a logarithm for a numeric derivative."""
OWN = 3
"""Parameters of each curve."""


Describe = Callable[[Fabric], Fabric]
"""What a person described of a network, put in place of what was fitted."""


def undescribed(fitted: Fabric) -> Fabric:
    return fitted


@dataclass(frozen=True)
class Layout:
    """Where the parameters of a fit are: shared ones first, then ``OWN`` of each curve.

    Latency and seconds per byte of links, contention, and where they are fitted, the same of links between hosts and
    the spread.
    """

    ranks_per_host: int | None
    trees: bool
    spans_hosts: bool
    spreads: bool

    @classmethod
    def of(cls, curves: Sequence[ScalingCurve], trees: bool) -> Layout:
        placed = [curve.ranks_per_host for curve in curves]
        together = [ranks for ranks in placed if ranks is not None]
        most = max(together) if len(together) == len(placed) else None
        spans = any(curve.spans_hosts for curve in curves)
        return cls(most, trees, spans, any(not curve.deviations for curve in curves))

    @property
    def links(self) -> list[int]:
        """Places of the logarithms of latencies and of seconds per byte."""
        return [0, 1, 3, 4] if self.spans_hosts else [0, 1]

    @property
    def shared(self) -> int:
        return 3 + 2 * self.spans_hosts + self.spreads

    def own(self, at: int) -> list[int]:
        """Places of the parameters of the curve at this position."""
        return list(range(self.shared + OWN * at, self.shared + OWN * (at + 1)))

    def fabric(self, theta: Floats) -> Fabric:
        inside = LinkTime(np.exp(theta[..., 0]), np.exp(theta[..., 1]))
        between = LinkTime(np.exp(theta[..., 3]), np.exp(theta[..., 4])) if self.spans_hosts else None
        return Fabric(inside, between, self.ranks_per_host, trees=self.trees)

    def costs(self, theta: Floats, at: int, model: StepModel) -> Costs:
        """Of the curve at this position."""
        own = np.exp(theta[..., self.own(at)])
        contention = 0.0 if model.curve.sleeps else 1 / (1 + np.exp(-theta[..., 2]))
        fixed = np.minimum(0.99, own[..., 2]) if model.curve.is_strong else 0.0
        spread = np.exp(theta[..., self.shared - 1]) if self.spreads else 0.0
        return Costs(own[..., 0], own[..., 1], fixed, contention, spread)


@dataclass(frozen=True)
class Fitted:
    """Estimates for curves that share a fabric, and draws of what they may be instead."""

    models: list[StepModel]
    layout: Layout
    theta: Floats
    draws: Floats
    """One row per draw."""
    cost: float
    """Half the sum of squared residuals."""

    @property
    def trees(self) -> bool:
        """Whether NCCL's all-reduce may be a tree."""
        return self.layout.trees

    @property
    def fabric(self) -> Fabric:
        return self.layout.fabric(self.theta)

    def costs(self, at: int) -> Costs:
        """Of the curve with this position."""
        return self.layout.costs(self.theta, at, self.models[at])

    def drawn_s(self, at: int, ranks: int, describe: Describe = undescribed) -> Floats:
        """The step time of a curve among so many ranks, in seconds, for each draw.

        What a person described of the network is certain; the rest differs between draws.
        """
        network = describe(self.layout.fabric(self.draws))
        seconds = self.models[at].step_s(ranks, self.layout.costs(self.draws, at, self.models[at]), network)
        return np.broadcast_to(np.asarray(seconds, dtype=np.float64), len(self.draws))

    def parts(self, at: int, ranks: int, draw: int, describe: Describe = undescribed) -> Parts:
        """The parts of a step of one draw."""
        theta, model = self.draws[draw], self.models[at]
        return model.parts(ranks, self.layout.costs(theta, at, model), describe(self.layout.fabric(theta)))


def fit(curves: Sequence[ScalingCurve], timed: Fabric | None = None) -> list[Fitted]:
    """Estimates from all world sizes of these curves, the most likely first; ``timed`` are links timed by themselves.

    There are two where NCCL has all-reduces, over all ranks or among the replicas of hybrid sharding: it chooses
    between a ring and a tree. One that is much less likely than the other is left out. Raises NotProjected where
    collectives follow no rule.
    """
    ring = _fit(curves, timed, trees=False)
    fits = [ring]
    if any(curve.has_trees and (curve.stage <= 1 or curve.shard_size) for curve in curves):
        one_host = ring.layout.ranks_per_host is not None and not ring.layout.spans_hosts
        as_tree = replace(ring, layout=replace(ring.layout, trees=True))  # within a host both are a chain
        fits.append(as_tree if one_host else _fit(curves, timed, trees=True))
    best = min(fits, key=lambda fitted: fitted.cost)
    return sorted((one for one in fits if one.cost - best.cost < LIKELY), key=lambda fitted: fitted.cost)


def _fit(curves: Sequence[ScalingCurve], timed: Fabric | None, *, trees: bool) -> Fitted:
    problem = Problem([StepModel(curve) for curve in curves], Layout.of(curves, trees), timed)
    estimates, costs = minimized(problem, problem.starts(), 0.0, ITERATIONS[0])
    minima = _minima(estimates[:, problem.layout.links], costs)
    best = minima[0]
    measured = problem.measured
    misfit = float(np.sum(np.square(problem.residuals(estimates[[best]])[0, :measured])))
    moved = np.random.default_rng(SEED).standard_normal((DRAWS, measured + len(estimates[best])))
    moved[:, :measured] *= max(1.0, misfit / max(1, measured - len(curves))) ** 0.5
    drawn = [minimized(problem, np.repeat(estimates[[at]], DRAWS, axis=0), moved, ITERATIONS[1]) for at in minima]
    nearest = np.argmin([draw_costs for _, draw_costs in drawn], axis=0)
    draws = np.stack([draws for draws, _ in drawn])[nearest, np.arange(DRAWS)]
    return Fitted(problem.models, problem.layout, estimates[best], draws, float(costs[best]))


def _minima(links: Floats, costs: Floats) -> list[int]:
    """The most likely estimate of these links, then others that data and priors which are moved could prefer to it."""
    minima: list[int] = []
    for at in np.argsort(costs):
        gaps = [np.abs(links[at] - links[other]).max() for other in minima]
        if costs[at] - costs.min() < RIVAL and all(gap > APART for gap in gaps):
            minima.append(int(at))
    return minima[:MINIMA]


@dataclass(frozen=True)
class Problem:
    """The residuals of the fit: misfits to measured step times, and distances from the prior.

    Parameters have one row for each set of them, so that many sets are computed at once.
    """

    models: list[StepModel]
    layout: Layout
    timed: Fabric | None = None
    """Links that were timed by themselves, or that a source states."""

    @cached_property
    def measured(self) -> int:
        """The residuals that are misfits; they come first."""
        return sum(len(model.curve.sizes) for model in self.models)

    @cached_property
    def prior(self) -> tuple[Floats, Floats]:
        """Center and deviation of each parameter."""
        emulated = self.layout.ranks_per_host is None
        backend = "emulated" if emulated else self.models[0].curve.backend
        free = (LATENCY.get(backend, WIDE), WIDE)
        links = [(INSIDE.get(backend, TCP), free)]
        if self.layout.spans_hosts:
            links.append((BETWEEN.get(backend, TCP), free))
        if self.timed:
            stated = (self.timed.inside, self.timed.between or self.timed.inside)
            links = [(link, (TIMED, TIMED)) for link, _ in zip(stated, links, strict=False)]
        logs = [[log(float(link.alpha_s)), log(float(link.s_per_byte))] for link, _ in links]
        center = [*logs[0], CONTENTION[0], *(logs[1] if len(logs) > 1 else [])]
        spread = [*links[0][1], CONTENTION[1], *(links[1][1] if len(links) > 1 else [])]
        if self.layout.spreads:
            center.append(SPREAD[0])
            spread.append(SPREAD[1])
        for model in self.models:
            smallest = model.curve.sizes[0]
            center += [log(model.curve.step_s(smallest).value), 0.0, log(FIXED[0])]
            spread += [WIDE, FACTOR, FIXED[1]]
        return np.array(center), np.array(spread)

    def starts(self) -> Floats:
        """The prior's center, and of it with ``STARTS`` the most likely of each latency and of each bandwidth."""
        starts = np.repeat(self.prior[0][None], len(STARTS) + 1, axis=0)
        for row, (alpha_s, s_per_byte, contention) in zip(starts[1:], STARTS, strict=True):
            row[self.layout.links] = [log(alpha_s), log(s_per_byte)] * (len(self.layout.links) // 2)
            row[2] = log(contention / (1 - contention))
        likely: dict[tuple[str, float], int] = {}
        for at in np.argsort(np.sum(np.square(self.residuals(starts[1:])), axis=1)):
            alpha_s, s_per_byte, _ = STARTS[at]
            likely.setdefault(("latency", alpha_s), int(at) + 1)
            likely.setdefault(("bandwidth", s_per_byte), int(at) + 1)
        return starts[[0, *sorted(set(likely.values()))]]

    def residuals(self, theta: Floats) -> Floats:
        """Misfits over their standard errors, then distances from the prior over its deviations."""
        misfits = [self._misfits(theta, at) for at in range(len(self.models))]
        return np.concatenate([*misfits, (theta - self.prior[0]) / self.prior[1]], axis=1)

    def jacobian(self, theta: Floats) -> Floats:
        """Derivatives (set, residual, parameter); a curve depends on the shared parameters and on its own only."""
        sets, places = theta.shape
        slopes = np.zeros((sets, self.measured + places, places))
        slopes[:, self.measured :] = np.diag(1 / self.prior[1])
        first = 0
        for at, model in enumerate(self.models):
            own = [*range(self.layout.shared), *self.layout.own(at)]
            moved = np.repeat(theta[None], len(own) + 1, axis=0)
            for row, place in enumerate(own, start=1):
                moved[row, :, place] += STEP
            values = self._misfits(moved.reshape(-1, places), at).reshape(len(own) + 1, sets, -1)
            last = first + len(model.curve.sizes)
            slopes[:, first:last, own] = np.moveaxis((values[1:] - values[0]) / STEP, 0, -1)
            first = last
        return slopes

    def _misfits(self, theta: Floats, at: int) -> Floats:
        model = self.models[at]
        curve, costs, fabric = model.curve, self.layout.costs(theta, at, model), self.layout.fabric(theta)
        logs = [
            np.log(model.step_s(ranks, costs, fabric) / curve.step_s(ranks).value) / curve.relative_error(ranks)
            for ranks in curve.sizes
        ]
        return np.stack([np.broadcast_to(values, len(theta)) for values in logs], axis=1)
