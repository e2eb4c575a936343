"""Model state per rank, measured against predicted, and the peak of a step."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.theory import predict_paper, predict_sent, predict_state, predict_transient
from bench.record import Record

KINDS = ("params", "master", "grads", "optimizer", "buffers")


@dataclass(frozen=True)
class Memory:
    """Bytes of one cell; None where nothing was measured or no formula is known."""

    state: dict[str, int] | None
    """Model state by kind on the rank that holds most of it."""
    predicted: dict[str, int] | None
    peak_bytes: int | None
    """Largest allocation of any rank during a step."""
    transient_bytes: int | None
    """Predicted: what the engine needs at most beside state and activations."""
    sent_bytes: float | None
    """Predicted: bytes sent per rank and step by bandwidth-optimal collectives."""
    paper_bytes: float | None
    """Model state by the ZeRO paper's formulas, which know no engine: a perfect partition, no padding."""

    @property
    def state_bytes(self) -> int | None:
        return None if self.state is None else sum(self.state.values())

    @property
    def predicted_bytes(self) -> int | None:
        return None if self.predicted is None else sum(self.predicted.values())

    @property
    def residual(self) -> float | None:
        """(measured - predicted) / predicted."""
        if self.state_bytes is None or not self.predicted_bytes:
            return None
        return self.state_bytes / self.predicted_bytes - 1


def memory(record: Record) -> Memory:
    """What a cell holds: the largest rank decides, ranks are never averaged."""
    largest = max(record.memory, key=lambda rank: rank.model_state_bytes, default=None)
    paper = predict_paper(record)
    return Memory(
        state=largest.state_bytes if largest else None,
        predicted=predict_state(record),
        peak_bytes=max((rank.peak_bytes for rank in record.memory), default=None),
        transient_bytes=predict_transient(record),
        sent_bytes=predict_sent(record),
        paper_bytes=paper[0] if paper else None,
    )
