"""Sweeps of the same cells that share their rounds, to be compared pair by pair.

In a round every cell runs once in each sweep, one launch right after the other. Which sweep goes first is drawn anew
for each cell and round: if the sweeps do not differ, either is as likely to be the slower of a pair, whatever the
machine does meanwhile.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from bench.cells import Cell
from bench.progress import SweepProgress
from bench.sweep import Sweep


class Interleaved:
    """``sweeps`` have equally many cells, in the same order; their records are named as rounds of one sweep."""

    def __init__(self, sweeps: Sequence[Sweep], name: str, seed: int) -> None:
        self.sweeps = sweeps
        self.order = random.Random(seed)
        for sweep in sweeps:
            for record in sweep.records.values():
                record.sweep_id = name

    def run(self) -> bool:
        """Measures all that can be; False if it was interrupted, and what was measured until then is kept."""
        turns = list(zip(*(sweep.cells for sweep in self.sweeps), strict=True))
        try:
            with SweepProgress(sum(self._left(turn) for turn in turns)) as progress:
                for sweep in self.sweeps:
                    sweep.progress = progress
                for turn in turns:
                    for sweep, cell in zip(self.sweeps, turn, strict=True):
                        if not cell.status:
                            sweep.prepare(cell)
                for number in range(max(cell.config.repeats for turn in turns for cell in turn)):
                    self._round(turns, number)
        except KeyboardInterrupt:
            print("interrupted: what is finished is kept and compared", file=sys.stderr)
            return False
        finally:
            for sweep in self.sweeps:
                sweep.write_all()
        return True

    def _left(self, turn: tuple[Cell, ...]) -> int:
        return sum(
            0 if cell.status else sweep.launches_left(cell) for sweep, cell in zip(self.sweeps, turn, strict=True)
        )

    def _round(self, turns: list[tuple[Cell, ...]], number: int) -> None:
        for turn in self.order.sample(turns, len(turns)):
            sides = [(sweep, cell) for sweep, cell in zip(self.sweeps, turn, strict=True) if not cell.status]
            for sweep, cell in self.order.sample(sides, len(sides)):
                sweep.take_turn(cell, number)
