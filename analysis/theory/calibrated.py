"""The workload ``calibrated`` in closed form: the time of a step, exposed communication, and what scales.

Layers compute one after another and take set times; the gradient of a layer is ready at the end of its backward, the
last layer's first. Gradients are communicated one bucket at a time, in that order. The update is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CalibratedStep:
    """The times of one rank's layers, in seconds, for each micro-batch."""

    layers: int
    forward_s: float
    backward_s: float
    accumulate: int = 1

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> CalibratedStep:
        """From a record's ``config`` with ``workload=calibrated``."""
        options, times = config["workload"], 1
        if options["per"] == "sample":
            ranks = config["gpus"] if config["scaling"] == "strong" else 1
            times = config["batch_size"] // ranks // config["accumulate"]
        forward_s, backward_s = times * options["forward_s"], times * options["backward_s"]
        return cls(options["layers"], forward_s, backward_s, config["accumulate"])

    def compute_s(self, factor: float = 1.0) -> float:
        """A step without communication; ``factor`` is a straggler's."""
        return factor * self.accumulate * self.layers * (self.forward_s + self.backward_s)

    def ready_s(self, layers_per_bucket: int = 1) -> list[float]:
        """When each bucket is full, from the start of the last micro-batch's backward."""
        ends = range(layers_per_bucket, self.layers + layers_per_bucket, layers_per_bucket)
        return [min(end, self.layers) * self.backward_s for end in ends]

    def step_s(self, bucket_s: float, *, overlap: bool, factor: float = 1.0, layers_per_bucket: int = 1) -> float:
        """A step of synchronous data parallelism whose gradient buckets take ``bucket_s`` each to all-reduce.

        A straggler waits between forward and backward, so its backward takes as long as any, and its buckets are last.
        """
        ready_s = self.ready_s(layers_per_bucket)
        communication_s = [bucket_s] * len(ready_s)
        exposed = exposed_s(ready_s, communication_s) if overlap else sum(communication_s)
        return self.compute_s(factor) + exposed

    def efficiency(self, bucket_s: float, *, overlap: bool, layers_per_bucket: int = 1) -> float:
        """Scaling from one rank, which communicates nothing, to as many as make a bucket take ``bucket_s``.

        Weak; and strong where samples take the time, since N ranks then have 1/N of it each.
        """
        return self.compute_s() / self.step_s(bucket_s, overlap=overlap, layers_per_bucket=layers_per_bucket)

    def overlapped_share(self, bucket_s: float, *, layers_per_bucket: int = 1) -> float:
        """Share of communication that a backward with overlap hides."""
        ready_s = self.ready_s(layers_per_bucket)
        return 1 - exposed_s(ready_s, [bucket_s] * len(ready_s)) / (bucket_s * len(ready_s))


def exposed_s(ready_s: Sequence[float], communication_s: Sequence[float]) -> float:
    """Time from the last bucket being ready to the end of its communication.

    A bucket starts once it is ready and the one before it is done. For L buckets that are ready every b seconds and
    take c each that is c where c <= b, and L·c - (L-1)·b otherwise.
    """
    done = 0.0
    for ready, seconds in zip(ready_s, communication_s, strict=True):
        done = max(done, ready) + seconds
    return done - ready_s[-1]
