"""Uneven ranks and data."""

from __future__ import annotations

from claims.claim import Finding, Register, claim, decided
from claims.suite import ExperimentError, Suite

CLAIMS: Register = []


@claim(
    CLAIMS,
    "A34",
    "All ranks of DDP must have equally much data.",
    "Three ranks, the last with 5 batches where the others have 8: steps that each does under torch's Join. It is "
    "refuted if all do all of theirs. Control: without Join the others end with an error.",
)
def data_must_be_equal(suite: Suite) -> Finding:
    each = [8, 8, 5]
    joined, alone = (
        suite.program("claims.programs.uneven:trained", len(each), batches=8, fewer=5, join=join)
        for join in (True, False)
    )
    if not all(rank["error"] for rank in alone[:-1]):
        raise ExperimentError("control: without Join no rank's error was seen")
    finished = [not rank["error"] and rank["steps"] == steps for rank, steps in zip(joined, each, strict=True)]
    because = (
        f"With batches of {each} on three ranks, {sum(finished)} of {len(each)} ranks do all their steps under Join. "
        f"Without it the others end after {alone[0]['steps']} steps with {alone[0]['error']}."
    )
    return decided(not all(finished), because, {"with Join": joined, "without Join": alone})
