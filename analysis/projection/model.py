"""The time of a step at any world size, in parts that add up.

T(N) = compute + update + communication that nothing hides + waiting for the slowest of N ranks.

- Compute is forward and backward of one rank. With strong scaling it is ``fixed`` + (1 - fixed)·N0/N of that at the
  smallest world size N0.
- The update takes 1/N of its time where the stage shards the optimizer.
- Communication is what ``schedule.pass_s`` leaves exposed: gradients reduced during backward, parameters gathered
  during forward and backward at stage 3, and what follows the update. Hidden communication costs time, too, by
  contention with computation.
- Waiting is the expected maximum over N ranks of the share by which a step exceeds its median, times a rank's own time.
  Where no rank was measured that waits for no other, it is that of normal deviations of a fitted size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist, pstdev

from analysis.projection.curve import ScalingCurve
from analysis.projection.fabric import Fabric, LinkTime, collective_s
from analysis.projection.schedule import Seconds, pass_s, spread

REDUCTIONS = ("all_reduce", "reduce_scatter", "reduce", "all_to_all")
SCALAR_BYTES = 64
"""Up to here a collective carries a loss, a norm or a flag."""


@dataclass(frozen=True)
class Costs:
    """The fitted parameters of one curve; or several sets of them, one per entry of each array."""

    step_s: Seconds
    """A step of one rank, without communication, at the smallest world size."""
    factor: Seconds
    """How much longer this configuration's collectives take than the fabric says."""
    fixed: Seconds = 0.0
    """Share of the compute time that does not shrink with the batch; strong scaling only."""
    contention: Seconds = 0.0
    """Share of its speed that computation loses while a collective is in flight."""
    spread: Seconds = 0.0
    """Deviation between ranks of their own time, as a share of it; counts where no deviations were measured."""


@dataclass(frozen=True)
class Parts:
    """The parts of a step, in seconds."""

    compute_s: float
    """Forward and backward, that with strong scaling shrink with the batch."""
    fixed_s: float
    """Of forward and backward, what does not shrink with the batch; 0 with weak scaling."""
    update_s: float
    latency_s: float
    """What communication adds to computation, exposed or by contention, if bandwidth is unlimited."""
    bandwidth_s: float
    """The rest of what communication adds."""
    straggler_s: float

    @property
    def step_s(self) -> float:
        return self.compute_s + sum(self.limits.values())

    @property
    def limits(self) -> dict[str, float]:
        """The parts that scaling adds or cannot reduce, by their names as bottlenecks."""
        return {
            "latency": self.latency_s,
            "bandwidth": self.bandwidth_s,
            "stragglers": self.straggler_s,
            "update": self.update_s,
            "fixed compute": self.fixed_s,
        }

    @property
    def bottleneck(self) -> str:
        """The part that costs most, of those that scaling adds or cannot reduce."""
        return max(self.limits, key=lambda name: self.limits[name])

    def grown(self, before: Parts, ideal: float) -> str:
        """The bottleneck that grew most from ``before`` in excess of the ideal, which is so many times its time."""
        excess = {name: seconds - ideal * before.limits[name] for name, seconds in self.limits.items()}
        return max(excess, key=lambda name: excess[name])


@dataclass(frozen=True)
class Phases:
    """The seconds of a step's collectives, by when they run."""

    forward: list[Seconds]
    """Gathers of parameters."""
    backward_gathers: list[Seconds]
    reductions: list[Seconds]
    other: list[Seconds]
    """After the update, or of scalars: nothing runs at the same time."""


@dataclass(frozen=True)
class StepModel:
    """A curve whose step time can be computed for any world size."""

    curve: ScalingCurve
    _excess: dict[int, float] = field(default_factory=dict, repr=False, compare=False)
    """By ranks, the share by which the slowest is expected to exceed the median."""

    def straggler_s(self, ranks: int, own_s: Seconds, spread: Seconds) -> Seconds:
        """Waiting for the slowest of so many ranks, each of which takes ``own_s`` alone."""
        if not self.curve.deviations:
            return own_s * spread * normal_maximum(ranks)
        if ranks not in self._excess:
            self._excess[ranks] = expected_maximum(self.curve.deviations, ranks) if ranks > 1 else 0.0
        return own_s * self._excess[ranks]

    def parts(self, ranks: int, costs: Costs, fabric: Fabric) -> Parts:
        """The parts of a step among ``ranks``. Raises NotProjected where its collectives cannot be determined."""
        compute_s, fixed_s, update_s = self._own_s(ranks, costs)
        own_s = compute_s + fixed_s
        exposed_s = float(self._exposed_s(ranks, own_s, costs, fabric))
        latency_s = min(exposed_s, float(self._exposed_s(ranks, own_s, costs, _without_bytes(fabric))))
        straggler_s = float(self.straggler_s(ranks, own_s + update_s, costs.spread))
        own = (float(compute_s), float(fixed_s), float(update_s))
        return Parts(*own, latency_s, exposed_s - latency_s, straggler_s)

    def step_s(self, ranks: int, costs: Costs, fabric: Fabric) -> Seconds:
        """The sum of the parts, for one set of costs and links, or for several at once."""
        compute_s, fixed_s, update_s = self._own_s(ranks, costs)
        own_s = compute_s + fixed_s
        exposed_s = self._exposed_s(ranks, own_s, costs, fabric)
        return own_s + update_s + exposed_s + self.straggler_s(ranks, own_s + update_s, costs.spread)

    def _own_s(self, ranks: int, costs: Costs) -> tuple[Seconds, Seconds, Seconds]:
        """Forward and backward that shrink with the batch, that do not, and the update."""
        curve = self.curve
        update_s = costs.step_s * curve.update_share / (ranks if curve.stage >= 1 else 1)
        compute_s = costs.step_s * (1 - curve.update_share)
        if not curve.is_strong:
            return compute_s, 0.0, update_s
        return (1 - costs.fixed) * compute_s * curve.sizes[0] / ranks, costs.fixed * compute_s, update_s

    def _exposed_s(self, ranks: int, compute_s: Seconds, costs: Costs, fabric: Fabric) -> Seconds:
        """What communication adds to the computation of a step: what nothing hides, and contention."""
        curve = self.curve
        phases = self.phases(ranks, costs.factor, fabric)
        times = curve.micro_batches
        backward_s = compute_s * curve.backward_share / times
        forward_s = compute_s / times - backward_s
        repeats = times if curve.stage >= 2 else 1  # stages 0 and 1 communicate in the last micro-batch only
        forward, gathers, reductions = (
            _each(entries, repeats) for entries in (phases.forward, phases.backward_gathers, phases.reductions)
        )
        exposed = sum(phases.other)
        if forward:
            exposed += repeats * (self._pass(forward_s, forward, [], costs.contention) - forward_s)
        if gathers or reductions:
            exposed += repeats * (self._pass(backward_s, gathers, reductions, costs.contention) - backward_s)
        return exposed

    def _pass(
        self, compute_s: Seconds, gathers: Sequence[Seconds], reductions: Sequence[Seconds], contention: Seconds
    ) -> Seconds:
        segments = max(len(gathers), len(reductions))
        gather_s = spread(gathers, segments) if gathers else [0.0] * segments
        reduce_s = spread(reductions, segments) if reductions else [0.0] * segments
        segment_s: list[Seconds] = [compute_s / segments] * segments
        return pass_s(segment_s, gather_s, reduce_s, overlap=self.curve.overlap, contention=contention)

    def phases(self, ranks: int, factor: Seconds, fabric: Fabric) -> Phases:
        """When each collective of a step among ``ranks`` runs, by stage and kind."""
        reductions: list[Seconds] = []
        among_replicas: list[Seconds] = []
        gathers: list[Seconds] = []
        other: list[Seconds] = []
        for call in self.curve.collectives(ranks):
            if call.kind == "recv":
                continue  # the other end of a send, which has the time of both
            stride = self.curve.stride(call, ranks)
            seconds = factor * collective_s(call, self.curve.backend, fabric, stride)
            if call.kind == "send":
                exchanges = max(1, call.count // (call.group_size - 1))
                reduced = round(exchanges * self._reduced_share(call.dtype))
                reductions += [seconds * (call.group_size - 1)] * reduced
                gathers += [seconds * (call.group_size - 1)] * (exchanges - reduced)
            elif call.size_bytes <= SCALAR_BYTES or (call.kind == "broadcast" and self.curve.stage == 0):
                other += [seconds] * call.count
            elif stride > 1:
                among_replicas += [seconds] * call.count
            else:
                (reductions if call.kind in REDUCTIONS else gathers).extend([seconds] * call.count)
        if among_replicas:
            summed = spread(among_replicas, len(reductions) or len(among_replicas))
            reductions = [one + other for one, other in zip(reductions or [0.0] * len(summed), summed, strict=True)]
        if self.curve.stage == 3:
            half = len(gathers) // 2
            return Phases(gathers[:half], gathers[half:], reductions, other)
        if self.curve.stage == 2 and self.curve.gathers_in_forward:
            return Phases(gathers, [], reductions, other)
        return Phases([], [], reductions, other + gathers)

    def _reduced_share(self, dtype: str) -> float:
        """Of a step's exchanges in a dtype, those that reduce gradients; the others gather parameters.

        Stage 1 reduces once and gathers once; stage 2 reduces in each micro-batch; stage 3 gathers twice in each. Where
        one of the two is quantized, the dtype decides.
        """
        quantized = self.curve.quantized
        if len(quantized) == 1:
            return float((dtype == "int8") == (quantized == ("gradients",)))
        times = self.curve.micro_batches
        return {1: 1 / 2, 2: times / (times + 1), 3: 1 / 3}.get(self.curve.stage, 1.0)


def expected_maximum(deviations: Sequence[float], ranks: int) -> float:
    """The expected maximum of so many draws from a sample of deviations, in their unit.

    ``deviations`` is ascending. With F the sample's distribution it is the mean over F^N. A sample of M says
    little of its tail beyond M/4 draws; from there the maximum grows as a normal distribution's does.
    """
    count = len(deviations)
    if count < 2:
        return 0.0
    draws = min(ranks, max(2, count // 4))
    total, below = 0.0, 0.0
    for at, value in enumerate(deviations, start=1):
        share = (at / count) ** draws
        total += value * (share - below)
        below = share
    return max(0.0, total + pstdev(deviations) * (normal_maximum(ranks) - normal_maximum(draws)))


def normal_maximum(draws: int) -> float:
    """The expected maximum of standard normal draws, within 5 % for 2 of them and 1 % from 7 on (Blom 1958)."""
    return NormalDist().inv_cdf((draws - 0.375) / (draws + 0.25)) if draws > 1 else 0.0


def _each(seconds: Sequence[Seconds], repeats: int) -> list[Seconds]:
    """The collectives of one of several equal micro-batches."""
    return list(seconds[: max(1, len(seconds) // repeats)]) if seconds else []


def _without_bytes(fabric: Fabric) -> Fabric:
    between = None if fabric.between is None else LinkTime(fabric.between.alpha_s, 0.0)
    return replace(fabric, inside=LinkTime(fabric.inside.alpha_s, 0.0), between=between)
