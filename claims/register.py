"""All claims, by topic, in the order of docs/claims/index.md."""

from __future__ import annotations

from claims.claim import Claim
from claims.topics import (
    asynchrony,
    averaging,
    communication,
    compute,
    convergence,
    data,
    faults,
    memory,
    scaling,
    systems,
)

TOPICS: dict[str, list[Claim]] = {
    "How gradients are averaged": averaging.CLAIMS,
    "Communication": communication.CLAIMS,
    "Memory": memory.CLAIMS,
    "Computation": compute.CLAIMS,
    "Synchronous or not": asynchrony.CLAIMS,
    "Convergence": convergence.CLAIMS,
    "Scaling": scaling.CLAIMS,
    "Uneven ranks and data": data.CLAIMS,
    "Faults": faults.CLAIMS,
    "Systems": systems.CLAIMS,
}
CLAIMS = {claim.id: claim for claims in TOPICS.values() for claim in claims}
