"""Sweeps of the same cells that share their rounds, to be compared pair by pair.

In a round every cell runs once in each sweep, one launch right after the other. Which sweep goes first is drawn again
for each cell and round: if the sweeps do not differ, either is as likely to be the slower of a pair, whatever the
machine does meanwhile.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from bench.plan.cell import Cell
from bench.sweep.progress import SweepProgress
from bench.sweep.records import GOES_ON
from bench.sweep.run import Sweep
from bench.sweep.turns import Turns
from results.record import side_id


class SideFailed(Exception):
    """No cell of one side runs any longer; the message names the side and the reason."""


class Interleaved:
    """``sweeps`` have equally many cells, in the same order; their records are named as sides of one run."""

    def __init__(self, sweeps: Sequence[Sweep], name: str, seed: int) -> None:
        self.sweeps = sweeps
        self.order = random.Random(seed)
        for sweep in sweeps:
            sweep.records.rename(side_id(name, sweep.store.folder.name))

    def run(self) -> bool:
        """Measures all that can be; False if it was interrupted, and what was measured until then is kept.

        Raises SideFailed, and keeps that too, as soon as one sweep has nothing left to be compared with the others.
        """
        rows = list(zip(*(sweep.cells for sweep in self.sweeps), strict=True))
        try:
            with SweepProgress(sum(self._left(cells) for cells in rows)) as progress:
                preparations, takers = zip(*(sweep.begin(progress) for sweep in self.sweeps), strict=True)
                for cells in rows:
                    for preparation, cell in zip(preparations, cells, strict=True):
                        if not cell.status:
                            preparation.prepare(cell)
                        self._check_sides()
                for number in range(max(cell.config.repeats for cells in rows for cell in cells)):
                    self._round(rows, takers, number)
        except KeyboardInterrupt:
            print("interrupted: what is finished is kept and compared", file=sys.stderr)
            return False
        finally:
            for sweep in self.sweeps:
                sweep.records.write_all()
        return True

    def _left(self, cells: tuple[Cell, ...]) -> int:
        return sum(
            0 if cell.status else sweep.records.launches_left(cell)
            for sweep, cell in zip(self.sweeps, cells, strict=True)
        )

    def _round(self, rows: list[tuple[Cell, ...]], takers: tuple[Turns, ...], number: int) -> None:
        for cells in self.order.sample(rows, len(rows)):
            sides = [(turns, cell) for turns, cell in zip(takers, cells, strict=True) if not cell.status]
            for turns, cell in self.order.sample(sides, len(sides)):
                turns.take(cell, number)
                self._check_sides()

    def _check_sides(self) -> None:
        for sweep in self.sweeps:
            records = list(sweep.records.by_cell.values())
            if not any(record.status in GOES_ON for record in records):
                last = records[-1]
                raise SideFailed(
                    f"{sweep.store.folder.name} has no configuration left that runs ({last.cell_id}: {last.status}: "
                    f"{last.reason}); what was measured is kept in {sweep.store.folder.parent}"
                )
