"""What happens when a rank dies."""

from __future__ import annotations

from typing import Any

from claims.claim import Finding, Register, claim, decided
from claims.suite import ExperimentError, Suite

CLAIMS: Register = []
RANKS, STEPS = 3, 6
SOON_S = 5.0


def survivors(suite: Suite, zero: bool) -> dict[int, list[dict[str, Any]]]:
    """The results of the other ranks, by the rank that was killed."""
    unharmed = suite.program("claims.programs.killed:survived", RANKS, victim=None, zero=zero)
    if any(rank["error"] or rank["steps"] != STEPS for rank in unharmed):
        raise ExperimentError("control: with no rank killed, not all completed their steps")
    by_victim = {}
    for victim in range(RANKS):
        ranks = suite.program("claims.programs.killed:survived", RANKS, may_die=True, victim=victim, zero=zero)
        by_victim[victim] = [rank for rank in ranks if rank is not None]
        if ranks[victim] is not None or len(by_victim[victim]) != RANKS - 1:
            raise ExperimentError(f"rank {victim} should have been killed, and no other")
    return by_victim


def ended(ranks: list[dict[str, Any]]) -> bool:
    return all(rank["error"] and rank["seconds"] <= SOON_S for rank in ranks)


@claim(
    CLAIMS,
    "A36",
    "ZeRO stops when its central server does, and only then.",
    "torch's ZeRO on three ranks, each of which is killed in turn. It is refuted if the others end with an error "
    "within 5 s whichever rank it is. Control: all complete their steps if none is killed.",
)
def dies_with_its_server(suite: Suite) -> Finding:
    by_victim = survivors(suite, zero=True)
    deadly = [victim for victim, ranks in by_victim.items() if ended(ranks)]
    slowest = max(rank["seconds"] for ranks in by_victim.values() for rank in ranks)
    because = (
        f"In {len(deadly)} of {RANKS} cases, each rank being killed in one, the others end with an error within "
        f"{SOON_S:g} s; the slowest takes {slowest:.2g} s."
    )
    return decided(
        len(deadly) < RANKS, because, {f"rank {victim} killed": ranks for victim, ranks in by_victim.items()}
    )


@claim(
    CLAIMS,
    "A37",
    "ZeRO makes training more tolerant of faults.",
    "torch's ZeRO and DDP on three ranks, each of which is killed in turn. It is supported if with ZeRO a survivor "
    "completes its steps in more of these cases than with DDP. Control: all do if none is killed.",
)
def raises_fault_tolerance(suite: Suite) -> Finding:
    kinds = {"ZeRO": survivors(suite, zero=True), "DDP": survivors(suite, zero=False)}
    complete = {
        kind: sum(any(rank["steps"] == STEPS for rank in ranks) for ranks in by_victim.values())
        for kind, by_victim in kinds.items()
    }
    because = (
        f"When one of {RANKS} ranks is killed, a survivor completes its steps in {complete['ZeRO']} of {RANKS} cases "
        f"with ZeRO and in {complete['DDP']} with DDP."
    )
    numbers = {
        f"{kind}, rank {victim} killed": ranks
        for kind, by_victim in kinds.items()
        for victim, ranks in by_victim.items()
    }
    return decided(complete["ZeRO"] > complete["DDP"], because, numbers)
