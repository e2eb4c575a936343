"""The communication of a step as a person reads it: what each cell called, and what that sent against predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.table.frame import each_cell
from analysis.table.rows import value
from analysis.text import units
from results.launches import Collective
from results.record import Record

SHORT_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


@dataclass(frozen=True)
class LedgerRow:
    """The communication of one cell, in words."""

    knobs: list[str]
    lines: list[str]
    sent: str
    predicted: str
    gap: str
    """Counted over predicted, such as ``+0.2 %``."""
    wire: str
    """What the interface counted."""


def ledger_rows(records: Sequence[Record], table: pd.DataFrame, names: Sequence[str]) -> list[LedgerRow]:
    """A row for each cell of several ranks whose collectives were counted, in the table's order."""
    found = []
    for at, row in each_cell(table):
        record = records[at]
        if record.collectives is None or row["gpus"] < 2:
            continue
        sent, predicted = row["sent_bytes"], row["sent_predicted_bytes"]
        uncounted, steps = record.resolved.get("uncounted"), record.config.get("local_steps") or 1
        comparable = units.known(sent) and units.known(predicted) and predicted
        found.append(
            LedgerRow(
                knobs=[value(name, row[name]) for name in names],
                lines=[
                    *summary(record.collectives),
                    *([f"in {steps} steps"] if steps > 1 else []),
                    *([f"not counted: {uncounted}"] if uncounted else []),
                ],
                sent=units.mib(sent),
                predicted=units.mib(predicted),
                gap=f"{100 * (sent / predicted - 1):+.2f} %" if comparable else units.MISSING,
                wire=units.mib(row["wire_bytes"]),
            )
        )
    return found


def summary(lines: Sequence[Collective]) -> list[str]:
    """The lines of a ledger, those of one kind, dtype and group together: ``62 broadcasts, 8.9 MiB fp32``.

    Bytes are those of the whole arrays. A receive is another rank's send and is left out.
    """
    together: dict[tuple[str, str, int], tuple[int, int]] = {}
    for line in lines:
        if line.kind != "recv":
            count, size = together.get((line.kind, line.dtype, line.group_size), (0, 0))
            together[line.kind, line.dtype, line.group_size] = count + line.count, size + line.total_bytes
    several = len({ranks for _, _, ranks in together}) > 1
    return [
        units.counted(count, kind.replace("_", "-"))
        + (f", {units.size(size)} {SHORT_DTYPES.get(dtype, dtype)}" if size else "")
        + (f", {ranks} ranks" if several else "")
        for (kind, dtype, ranks), (count, size) in together.items()
    ]
