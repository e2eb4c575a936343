"""All claims and published numbers, by topic, in the order of docs/claims/index.md."""

from __future__ import annotations

from claims.claim import Claim
from claims.published import emulated, horovod, projected, sent, update
from claims.published import memory as published_memory
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
PUBLISHED: dict[str, list[Claim]] = {
    "Published memory": published_memory.CLAIMS,
    "Published volumes of communication": sent.CLAIMS,
    "Published scaling curves, against the projection": [*projected.CLAIMS, *horovod.CLAIMS],
    "Published times, on emulated links": emulated.CLAIMS,
    "Published times of updates": update.CLAIMS,
}
TOPICS |= PUBLISHED
CLAIMS = {claim.id: claim for claims in TOPICS.values() for claim in claims}
