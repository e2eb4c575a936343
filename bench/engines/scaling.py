"""Dynamic loss scaling as the harness reads it: outside of timed steps, from the scale before and after them."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

import torch


@dataclass(frozen=True)
class LossScaling:
    """The state of dynamic loss scaling. A skipped update halves the scale; many good ones in a row double it."""

    scale: float
    good_steps: int
    """Updates since the last one that was skipped, or since the scale was doubled."""
    growth_interval: int
    """Good steps after which the scale is doubled."""
    skips: int | None = None
    """Updates skipped so far, where the engine itself counts them."""

    @classmethod
    def of(cls, scaler: torch.amp.GradScaler | None) -> LossScaling | None:
        """None of a scaler that does nothing. Waits for the device."""
        state = scaler.state_dict() if scaler else {}
        if not state:
            return None
        return cls(state["scale"], state["_growth_tracker"], state["growth_interval"])

    def skipped_since(self, before: LossScaling, steps: int) -> int:
        """How many of ``steps`` updates were skipped, given the state of scaling before them.

        Exact where they are too few for the scale to double in between; else the fewest that explain the scale.
        """
        if self.skips is not None and before.skips is not None:
            return self.skips - before.skips
        if self.scale <= 0:  # halved until nothing was left
            return steps
        doublings = (before.good_steps + steps) // self.growth_interval
        change = round(log2(self.scale / before.scale))
        if change >= doublings:
            return 0
        return max(-change, 1)
