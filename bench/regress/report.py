"""The end of a regression check: a verdict for each cell, on the terminal, and the exit code."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.comparison import time_gate
from analysis.comparison.time_gate import MARGIN, least_rounds
from analysis.comparison.verdict import Pair
from analysis.text.units import is_finite
from results.record import Record
from terminal.tables import console

__all__ = ["MARGIN", "NOT_COMPARED", "compare", "least_rounds"]

NOT_COMPARED = 2
"""Exit code."""


def compare(before: Sequence[Record], after: Sequence[Record], sides: tuple[str, str], margin: float) -> int:
    """Prints the verdicts on cells of both sides, in the same order; the exit code."""
    verdicts = time_gate.judge_all([Pair(*records) for records in zip(before, after, strict=True)], margin)
    time_gate.show(verdicts, sides, margin, console())
    if any(entry.failed for entry in verdicts):
        return 1
    return 0 if any(is_finite(entry.step.low) for entry in verdicts) else NOT_COMPARED
