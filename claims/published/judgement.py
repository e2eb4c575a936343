"""How a published value is held against a projection: its difference, its band and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from analysis.projection.held_out import Projected
from claims import shape
from claims.claim import Compared, ComparisonPlot, Finding, PlottedCurve

TOLERANCE = 0.05
OPEN = 2.0
"""A projected value whose 90 % band spans more than this factor is not known."""
UNDECIDED = (
    "Not testable here if neither holds, and every published value lies in its 90 % band: the projection then excludes "
    "no value that was published. This last rule came after the result."
)


def judged(label: str, projected: Projected, published: float, per_step: float, unit: str) -> Compared:
    """A published rate against the projected one; ``per_step`` is the work of a step."""
    low, high = per_step / projected.high_s, per_step / projected.low_s
    return Compared(f"{label}, {projected.ranks} GPUs", published, per_step / projected.step_s, unit, low, high)


def in_words(compared: Sequence[Compared]) -> str:
    """Such as ``at 128 GPUs +2.1 %``."""
    return ", ".join(f"{one.what}: {100 * one.difference:+.1f} %" for one in compared)


def is_open(one: Compared) -> bool:
    """Whether the band is too wide to compare the value with anything."""
    return one.low is not None and one.high is not None and one.high > OPEN * one.low


def open_in_words(compared: Sequence[Compared]) -> str:
    """Such as `` At 256 GPUs the band spans a factor of 3.``, or nothing."""
    factors = [f"{one.what}: {one.high / one.low:.1f}" for one in compared if is_open(one) and one.low and one.high]
    return f" The band spans a factor of more than {OPEN:g} ({', '.join(factors)})." if factors else ""


def plotted(name: str, published: Mapping[int, float], projected: Mapping[int, Compared], y: str) -> ComparisonPlot:
    """Published values by GPUs, and those that were projected."""
    line = PlottedCurve(name, list(map(float, published)), list(published.values()))
    compared = projected.values()
    ours = PlottedCurve(
        name,
        list(map(float, projected)),
        [one.ours for one in compared],
        [one.low or one.ours for one in compared],
        [one.high or one.ours for one in compared],
    )
    return ComparisonPlot("GPUs", y, [line], [ours])


def in_shape(because: str, curves: Sequence[shape.Curve]) -> tuple[str, bool]:
    """The reason with what of the published shape is not reproduced, and whether the whole shape is."""
    missing = shape.differences(curves)
    rule = " By the rule of claims/shape.py alone it is not in shape: "
    return because + (f"{rule}{'; '.join(missing)}." if missing else ""), not missing


def unless_undecided(finding: Finding) -> Finding:
    """Contradicts nothing where the bands have every published value, and one is beyond the tolerance."""
    beyond = any(abs(one.difference) > TOLERANCE for one in finding.compared)
    if finding.verdict == "contradicted" and beyond and all(one.is_inside for one in finding.compared):
        return replace(finding, verdict="not testable here")
    return finding
