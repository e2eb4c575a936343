"""Whether training computes what a single process does: errors tensor by tensor, and how they are judged.

A *tensor* is one parameter of the model. It is compared after the first step, when rounding has not yet grown, and
after the last. A cell within the usual tolerance in all tensors passes. Otherwise the noise of the single process is
measured (``Noise``) and each tensor is judged by that:

- its *limit* is ``FACTOR`` times the largest error that rounding alone caused in it, at least the usual tolerance;
- its *cap* is a ``SHARE`` of the error that it would have if its gradient were not reduced.

An error beyond the limit is a fault. One within the limit and beyond the cap cannot be judged: rounding can cause it,
and so can a fault.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

FACTOR = 3.0
"""Times the largest of several draws of a tensor's noise."""
SHARE = 0.5
"""Of the error of an unreduced tensor, as the most that a tolerance may be."""
ALONE = 0.15
"""The same where a single micro-batch leaves nothing to reduce; and the widest tolerance of a loss."""
NAMED = 3
"""How many tensors a sentence names."""

ByTensor = dict[str, list[float]]
"""By tensor, a figure after the first step and one after the last."""
POINTS = ("the first step", "{steps} steps")


@dataclass(frozen=True)
class Noise:
    """Errors of the single process against itself: what rounding does to this model, and what a fault would."""

    reduction: ByTensor
    """Largest error of draws whose gradients differ as if they were summed in another order."""
    computation: ByTensor
    """Largest error of draws whose weights begin a rounding unit apart, as if every operation rounded otherwise."""
    fault: ByTensor
    """Error of a tensor whose gradient is the first rank's alone. Empty if all of the batch is one micro-batch."""
    loss: float
    """Largest loss error of all draws."""
    zero_gradients: list[str] = field(default_factory=list)
    """Tensors whose gradient is nothing but rounding."""
    unrepeatable: str = ""
    """What differs between two equal runs of the single process, in words; empty if nothing that matters does."""


@dataclass(frozen=True)
class WorstTensor:
    """The tensor whose error is largest as a multiple of its tolerance."""

    name: str
    step: str
    """When it was compared, in words."""
    error: float
    tolerance: float


@dataclass(frozen=True)
class RankDifference:
    """A tensor that should be the same on all ranks and is not."""

    rank: int
    """The rank that differs most from rank 0."""
    tensor: str
    error: float
    """Its distance to rank 0's, as a share of what training moved it."""


@dataclass(frozen=True)
class Parity:
    """Training compared with a single process on the same global batches."""

    steps: int
    loss_error: float
    """Largest relative error of a step's global loss."""
    weights_error: float
    """Distance between the final weights over the length of the reference's path (docs/explanation/parity.md)."""
    tolerance: float
    """The usual one, of the precision."""
    losses: list[float]
    reference_losses: list[float]
    resolution: float | None = None
    """Largest error that rounding alone caused in a tensor; None where it was not measured."""
    weights_digest: str = ""
    """SHA-256 of the final weights' bytes, by which runs are compared bit by bit."""
    tensor_errors: ByTensor = field(default_factory=dict)
    """Error of each tensor, after the first and after the last step."""
    worst: WorstTensor | None = None
    ranks_differ: RankDifference | None = None
    zero_gradients: list[str] = field(default_factory=list)
    """Tensors whose gradient is nothing but rounding: they are not judged. Known where the noise was measured."""
    widened: str = ""
    """Where a tolerance above the usual one was needed, in words."""
    failed: str = ""
    """What differs from a single process, in words."""
    unjudged: str = ""
    """Why parity cannot be judged, in words."""
    reference_fault: str = ""
    """What is wrong with the single process itself, in words."""

    @property
    def error(self) -> float:
        """The larger of the loss error and the worst tensor's; NaN if either is."""
        errors = (self.loss_error, self.worst.error if self.worst else self.weights_error)
        return math.nan if any(map(math.isnan, errors)) else max(errors)

    @property
    def passed(self) -> bool:
        if self.failed or self.unjudged:
            return False
        return bool(self.worst) or self.error <= self.tolerance  # False for NaN

    @property
    def outcome(self) -> str:
        """``passed``, ``failed`` or ``not judged``."""
        return "passed" if self.passed else "not judged" if self.unjudged else "failed"

    def judged(self, noise: Noise | None = None) -> Parity:
        """The same with its outcome: by the usual tolerance, or by the model's own noise."""
        parity = dataclasses.replace(self, failed="", unjudged=self.reference_fault)
        return parity if parity.unjudged else _Judgement(parity, noise).outcome()

    def without_judgement(self, why: str) -> Parity:
        """The same where what is compared need not be equal: passed if it is, else not judged."""
        return self if self.passed else dataclasses.replace(self, failed="", unjudged=why)


class _Judgement:
    """One parity, judged by one noise."""

    def __init__(self, parity: Parity, noise: Noise | None) -> None:
        self.parity, self.noise, self.base = parity, noise, parity.tolerance
        zero = set(noise.zero_gradients) if noise else set()
        self.errors = {name: errors for name, errors in parity.tensor_errors.items() if name not in zero}
        self.beyond: list[WorstTensor] = []
        self.unsure: list[WorstTensor] = []
        self.wide: list[WorstTensor] = []
        self.worst: WorstTensor | None = None

    def outcome(self) -> Parity:
        for point in range(len(POINTS)):
            self._tensors(point)
        loss = self._loss()
        parity = dataclasses.replace(
            self.parity,
            worst=self.worst,
            resolution=self._resolution(),
            zero_gradients=self.noise.zero_gradients if self.noise else [],
            widened=self._sentence(self.wide, "within a widened tolerance"),
        )
        difference = parity.ranks_differ
        if difference and not difference.error <= self.base:
            words = f"rank {difference.rank} has another {difference.tensor} than rank 0: they are apart by "
            return dataclasses.replace(parity, failed=f"{words}{difference.error:.2g} of what training moved it")
        if self.noise and self.noise.unrepeatable and (self.beyond or self.unsure or loss):
            return dataclasses.replace(parity, unjudged=self.noise.unrepeatable)
        if self.beyond:
            return dataclasses.replace(parity, failed=self._sentence(self.beyond, "differs from a single process"))
        if loss:
            failed, unjudged = loss
            return dataclasses.replace(parity, failed=failed, unjudged=unjudged)
        if self.unsure:
            words = self._sentence(self.unsure, "cannot be judged at this batch")
            hint = "rounding alone can cause this, and so can a fault. Try a larger batch, optimizer=sgd or fp32"
            return dataclasses.replace(parity, unjudged=f"{words}; {hint}")
        return parity

    def _loss(self) -> tuple[str, str] | None:
        """Why the losses fail or cannot be judged; None if they pass."""
        error, noise = self.parity.loss_error, self.noise.loss if self.noise else 0.0
        limit = max(self.base, FACTOR * noise) if noise == noise else math.inf
        if error <= max(self.base, min(limit, ALONE)):
            return None
        words = f"a step's loss differs from a single process's by {error:.2g} of it"
        if error <= limit:
            return "", f"{words}; cannot be judged at this batch: rounding alone can cause this"
        return f"{words}; tolerance {max(self.base, min(limit, ALONE)):.2g}", ""

    def _tensors(self, point: int) -> None:
        """Judges all tensors after the first or the last step."""
        quiet = self._quiet(point)
        for name, errors in self.errors.items():
            error = errors[point]
            limit = self._limit(name, point, quiet)
            cap = max(self.base, self._cap(name, point))
            tolerance = min(limit, cap)
            entry = WorstTensor(name, POINTS[point].format(steps=self.parity.steps), error, tolerance)
            if not error <= limit:  # True for NaN
                self.beyond.append(entry)
            elif error > cap:
                self.unsure.append(entry)
            elif error > self.base:
                self.wide.append(entry)
            if self.worst is None or _severity(entry) > _severity(self.worst):
                self.worst = entry

    def _limit(self, name: str, point: int, quiet: bool) -> float:
        if self.noise is None:
            return self.base
        draws = [self.noise.reduction.get(name, [0.0, 0.0])[point]]
        if not quiet:
            draws.append(self.noise.computation.get(name, [0.0, 0.0])[point])
        return math.inf if any(map(math.isnan, draws)) else max(self.base, FACTOR * max(draws))

    def _resolution(self) -> float | None:
        if self.noise is None:
            return None
        drawn = (self.noise.reduction, self.noise.computation)
        return max((max(draws[name]) for draws in drawn for name in draws if name in self.errors), default=0.0)

    def _quiet(self, point: int) -> bool:
        """Whether the engine computes the same operations, so that only sums of gradients are rounded otherwise.

        Of the tensors in which the two kinds of noise differ, most then have an error of the smaller kind.
        """
        if self.noise is None:
            return True
        smaller = {name: self._limit(name, point, True) for name in self.errors}
        telling = [name for name in self.errors if self._limit(name, point, False) > 2 * smaller[name]]
        near = sum(self.errors[name][point] <= smaller[name] for name in telling)
        return 2 * near > len(telling)

    def _cap(self, name: str, point: int) -> float:
        if self.noise is None:
            return self.base
        if name not in self.noise.fault:
            return ALONE
        return SHARE * min(1.0, self.noise.fault[name][point])

    def _sentence(self, entries: list[WorstTensor], what: str) -> str:
        """The worst tensor with its numbers, and how many others there are."""
        if not entries:
            return ""
        worst = max(entries, key=_severity)
        names = list(dict.fromkeys(entry.name for entry in sorted(entries, key=_severity, reverse=True)))
        others = [name for name in names if name != worst.name]
        more = f"; also {', '.join(others[: NAMED - 1])}" if others else ""
        rest = f" and {len(others) - NAMED + 1} more" if len(others) >= NAMED else ""
        return (
            f"{worst.name} {what}: after {worst.step} it is off by {worst.error:.2g} of what training moved it, "
            f"tolerance {worst.tolerance:.2g}{more}{rest}"
        )


def _severity(entry: WorstTensor) -> float:
    return math.inf if math.isnan(entry.error) else entry.error / max(entry.tolerance, 1e-300)
