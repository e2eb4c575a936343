"""Communication per step: what each configuration called, and the bytes it sent compared with the prediction."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.metrics.measured import Measured
from analysis.report.model.content import Content
from analysis.report.model.section import Section, Value, numbers, words
from analysis.text import units
from results.launches import Collective

SHORT_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


def section(content: Content) -> Section:
    """A row for each configuration of several ranks whose collectives were counted."""
    cells = content.where(lambda cell: cell.record.collectives is not None and cell.world_size > 1)
    return Section(
        "Communication per step",
        "communication",
        tables=content.cell_table(
            cells, row, numbers("sent (MiB)", "predicted (MiB)", "off by", "at the interface (MiB)"), words("calls")
        ),
        folded="details",
        notes=[
            "Sent: per rank, each call at its bandwidth optimum, in one untimed step. Predicted: from parameter shapes "
            "alone, without buffers, clipping and the loss.",
            "Calls: of one rank, with the bytes of their whole arrays; the records have them line by line. At the "
            "interface: counted in timed steps, divided by the ranks; includes unrelated traffic on the interface.",
        ],
    )


def row(cell: Measured) -> list[Value]:
    sent, predicted = cell.sent_bytes, cell.memory.sent_bytes
    comparable = sent is not None and units.is_finite(sent) and predicted is not None and predicted
    return [
        Value(units.mib(sent)),
        Value(units.mib(predicted)),
        Value(f"{100 * (sent / predicted - 1):+.2f} %" if comparable and sent and predicted else units.MISSING),
        Value(units.mib(cell.wire_bytes)),
        Value("; ".join(calls(cell)) or "none"),
    ]


def calls(cell: Measured) -> list[str]:
    """The calls of a step by kind, the number of steps if several were counted together, and what was not counted."""
    uncounted, steps = cell.record.resolved.get("uncounted"), cell.record.config.get("local_steps") or 1
    return [
        *summary(cell.record.collectives or []),
        *([f"in {steps} steps"] if steps > 1 else []),
        *([f"not counted: {uncounted}"] if uncounted else []),
    ]


def summary(lines: Sequence[Collective]) -> list[str]:
    """The lines of a collective trace, those of one kind, dtype and group together: ``62 broadcasts, 8.9 MiB fp32``.

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
