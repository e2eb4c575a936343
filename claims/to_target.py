"""Training until a loss: how soon, and at which learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

from analysis.metrics.rounds import ratio, samples
from analysis.metrics.target import Target, seconds_to_target, to_target
from analysis.statistics.medians import Interval, median_interval
from claims.suite import ExperimentError, sound
from results.record import Record

LOSS = 0.3
"""On digits, smoothed; it begins at 2.3."""
IMAGES = 1797
"""In digits."""
SGD = ("optimizer=sgd", f"target_loss={LOSS}", "threads=1")
"""With momentum 0.9."""


def every_image(samples: int) -> str:
    """The setting by which a pool of global batches of so many ``samples`` holds every image."""
    return f"measure.batch_pool={math.ceil(IMAGES / samples)}"


def soonest(records: Iterable[Record]) -> Record:
    """The one with the shortest median time; others differ from it in the learning rate. Raises ExperimentError."""
    every = list(records)
    best = min(every, key=lambda record: outcome(record).seconds.value)
    if not math.isfinite(outcome(best).seconds.value):
        raise ExperimentError(f"{best.cell_id}: none of {len(every)} learning rates reached a loss of {LOSS}")
    rates = [record.config["lr"] for record in every]
    if best.config["lr"] in (min(rates), max(rates)):
        raise ExperimentError(f"{best.cell_id}: a learning rate beyond lr={best.config['lr']} may be faster")
    return best


def outcome(record: Record) -> Target:
    """What it took. Raises ExperimentError where the configuration did not end well."""
    target = to_target(sound(record))
    if target is None:
        raise ExperimentError(f"{record.cell_id}: no target_loss")
    return target


def times_as_soon(first: Record, second: Record) -> Interval:
    """The second's time to the loss over the first's; median over rounds, which share a seed."""
    above, below, paired = samples(second, first, seconds_to_target)
    if not paired:
        raise ExperimentError(f"{first.cell_id} and {second.cell_id} have fewer than two rounds in common")
    if any(one == other == math.inf for one, other in zip(above, below, strict=True)):
        raise ExperimentError(f"{first.cell_id} and {second.cell_id}: neither reached a loss of {LOSS} in a round")
    return ratio(above, below, paired=True)


def times_the_steps(first: Record, second: Record) -> Interval:
    """The second's steps to the loss over the first's; median over rounds. Raises ExperimentError."""
    ours, theirs = outcome(first).outcomes, outcome(second).outcomes
    if any(one.steps == math.inf for one in (*ours, *theirs)):
        raise ExperimentError(f"{first.cell_id} or {second.cell_id} has launches that did not reach a loss of {LOSS}")
    return median_interval([other.steps / one.steps for one, other in zip(ours, theirs, strict=True)])


def in_numbers(record: Record, what: str) -> dict[str, float]:
    """Its numbers, for a finding."""
    target = outcome(record)
    return {
        f"{what}, seconds to the loss": target.seconds.value,
        f"{what}, steps to the loss": target.steps.value,
        f"{what}, learning rate": record.config["lr"],
    }
