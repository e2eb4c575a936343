"""Whether steps did all that a step does: whether each of them updated the weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Updates:
    """Of some steps of one rank."""

    steps: int
    skipped: int = 0
    """Steps whose update loss scaling skipped, because a gradient was not finite."""
    settling: int = 0
    """Steps that were added before them, until the loss scale had settled."""
    weights_changed: bool = True
    """Whether any weight differed after them."""

    @property
    def made(self) -> int:
        return self.steps - self.skipped
