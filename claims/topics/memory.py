"""What is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from claims import to_target
from claims.claim import Finding, Register, by_parts, claim, decided
from claims.suite import ExperimentError, Suite, sound
from results.memory import RankMemory
from results.record import Record

CLAIMS: Register = []

RANKS = (1, 2, 4)
MOST = RANKS[-1]
ENGINES = ("native", "torch")
MARGIN = 0.02
ODD_WIDTH = 250
"""Of the layers: neither a layer nor its bias divides by four, so what sharding adds as padding is seen."""
GLOBAL_BATCH = 256
PADDING = 0.01
BATCHES = (2, 28)
"""Global batches of 64 samples in the data set."""
WIDTHS = (16, 64)
SLOWER = 1.5
"""Factor by which times must differ before they count as different: ranks share two cores with whatever else runs."""


COUNTS: dict[str, Callable[[RankMemory], int]] = {
    "model state": lambda rank: rank.model_state_bytes,
    "activations": lambda rank: rank.peak_by_kind.get("activations", 0),
}


@dataclass(frozen=True)
class MemoryCell:
    engine: str
    stage: int
    ranks: int


def cells(suite: Suite) -> dict[MemoryCell, Record]:
    """Stages 0 to 3 of both engines on one, two and four ranks that share a global batch; nothing here is timed."""
    records = suite.sweep(
        f"engine={','.join(ENGINES)}",
        "stage=0,1,2,3",
        f"gpus={','.join(map(str, RANKS))}",
        "workload=mlp",
        f"workload.width={ODD_WIDTH}",
        "scaling=strong",
        f"batch_size={GLOBAL_BATCH}",
        "repeats=1",
        "steps=1",
        "warmup=0",
        "measure.ceiling=false",
    )
    return {
        MemoryCell(record.config["engine"]["name"], record.config["stage"], record.config["gpus"]): weighed(record)
        for record in records
    }


def weighed(record: Record) -> Record:
    """The record of a cell that ended well and whose memory was counted. Raises ExperimentError."""
    if sound(record).model is None or not record.memory:
        raise ExperimentError(f"{record.cell_id}: its memory was not counted")
    return record


def whole_bytes(record: Record) -> int:
    """Of all parameters, each once."""
    assert record.model is not None
    return 4 * record.model.parameter_count


def per_rank(record: Record, count: Callable[[RankMemory], int]) -> list[float]:
    """The bytes that ``count`` gives for each rank, as a multiple of all parameters."""
    return [count(rank) / whole_bytes(record) for rank in record.memory]


def kept_params(record: Record) -> list[float]:
    """Parameters that each rank has between steps."""
    return per_rank(record, lambda rank: rank.rest_by_kind.get("params", 0))


def gathered_at_peak(record: Record) -> float:
    """The most of all parameters that any rank has at the moment when its step needs most memory."""
    kinds = ("params", "gathered")
    return max(per_rank(record, lambda rank: sum(rank.peak_by_kind.get(kind, 0) for kind in kinds)))


@claim(
    CLAIMS,
    "A21",
    "Under DDP every rank keeps all parameters.",
    "Bytes of parameters that the allocator holds between steps at stage 0, on every rank of 1, 2 and 4, in two "
    "engines: all within 2 % of the whole model's. Control: the same count at stage 3 must be far below.",
)
def ddp_keeps_all_parameters(suite: Suite) -> Finding:
    records = cells(suite)
    kept = {cell: kept_params(record) for cell, record in records.items()}
    ddp = [share for cell, shares in kept.items() if cell.stage == 0 for share in shares]
    sharded = max(share for engine in ENGINES for share in kept[MemoryCell(engine, 3, MOST)])
    if sharded > 0.5:
        raise ExperimentError(f"the control, stage 3 on {MOST} ranks, is seen to keep {sharded:.3g} of the parameters")
    because = (
        f"On 1, 2 and 4 ranks each keeps {min(ddp):.3f} to {max(ddp):.3f} of the model's parameters "
        f"(the control, stage 3 on {MOST} ranks: {sharded:.3f})."
    )
    numbers = {
        f"{cell.engine}, {cell.ranks} ranks: least kept, share of the parameters": min(shares)
        for cell, shares in kept.items()
        if cell.stage == 0
    }
    return decided(all(abs(share - 1) <= MARGIN for share in ddp), because, numbers | {"control": sharded})


@claim(
    CLAIMS,
    "A22",
    "Under ZeRO no rank needs to keep a full copy of the parameters.",
    f"The same count at stages 1, 2 and 3 of the suite's own engine, N = {MOST}: a stage keeps no full copy if every "
    "rank has less than 98 % of the parameters between steps. Partly, if some stages keep one and some do not.",
)
def zero_keeps_no_full_copy(suite: Suite) -> Finding:
    records = cells(suite)
    most = {
        (engine, stage): max(kept_params(records[MemoryCell(engine, stage, MOST)]))
        for engine in ENGINES
        for stage in (1, 2, 3)
    }
    without = [most["native", stage] < 1 - MARGIN for stage in (1, 2, 3)]
    peak = {engine: gathered_at_peak(records[MemoryCell(engine, 3, MOST)]) for engine in ENGINES}
    native, other = (", ".join(f"{most[engine, stage]:.2f}" for stage in (1, 2, 3)) for engine in ENGINES)
    because = (
        f"Stages 1, 2, 3 keep {native} of the parameters on a rank; torch, whose stage 2 is fully_shard that does not "
        f"reshard after forward, {other}. During a step stage 3 had up to {max(peak.values()):.2f} of them gathered."
    )
    kept = {f"{engine}, stage {stage}: kept, share of the parameters": share for (engine, stage), share in most.items()}
    return by_parts(
        without,
        because,
        kept | {f"{engine}, stage 3: there at the peak of a step, share": share for engine, share in peak.items()},
    )


@claim(
    CLAIMS,
    "A23",
    "DDP lowers the memory that each device needs.",
    "Stage 0 on 1, 2 and 4 ranks that share one global batch: model state per rank, and activations per rank. Lower by "
    "over 2 % on four ranks counts. Supported if both are, refuted if neither; partly if one is.",
)
def ddp_lowers_memory(suite: Suite) -> Finding:
    records = cells(suite)
    over: dict[tuple[str, str, int], float] = {}
    for engine in ENGINES:
        for what, count in COUNTS.items():
            alone = max(per_rank(records[MemoryCell(engine, 0, 1)], count))
            for ranks in RANKS[1:]:
                over[engine, what, ranks] = max(per_rank(records[MemoryCell(engine, 0, ranks)], count)) / alone
    state = COUNTS["model state"]
    control = max(per_rank(records[MemoryCell("native", 3, MOST)], state)) / max(
        per_rank(records[MemoryCell("native", 0, 1)], state)
    )
    lower = [all(over[engine, what, MOST] < 1 - MARGIN for engine in ENGINES) for what in COUNTS]
    because = (
        f"With {MOST} ranks instead of one, model state per rank is {over['native', 'model state', MOST]:.3f} times as "
        f"large (stage 3: {control:.2f}); activations are {over['native', 'activations', MOST]:.2f} times, because a "
        "rank has a smaller share of the same batch."
    )
    numbers = {f"{engine}, {what}: {ranks} ranks over 1": ratio for (engine, what, ranks), ratio in over.items()}
    return by_parts(lower, because, numbers | {f"control: model state at stage 3, {MOST} ranks over 1": control})


@claim(
    CLAIMS,
    "A40",
    "ZeRO can add parameters and so make the model larger.",
    "Elements of parameters at stage 3, summed over all ranks, in two engines on 2 and 4 ranks, with layers whose "
    "sizes do not divide evenly. More than 1 % (padding) above the model's own count would support it.",
)
def zero_adds_parameters(suite: Suite) -> Finding:
    records = cells(suite)
    total = {
        (engine, ranks): sum(kept_params(records[MemoryCell(engine, 3, ranks)]))
        for engine in ENGINES
        for ranks in RANKS[1:]
    }
    model = records[MemoryCell("native", 3, MOST)].model
    assert model is not None
    most, least = max(total.values()), min(total.values())
    because = (
        f"The ranks together keep {least:.4f} to {most:.4f} times the model's {model.parameter_count:,} parameters "
        "(shards are padded)."
    )
    numbers = {f"{engine}, {ranks} ranks: sum over the model's": share for (engine, ranks), share in total.items()}
    if least < 1 - 1e-9:
        raise ExperimentError(f"ranks together are seen to keep only {least:.6f} of the parameters")
    return decided(most > 1 + PADDING, because, numbers)


def by_size(suite: Suite) -> dict[tuple[int, int, int], Record]:
    """By width of the model, batches of the data set, and stage: digits until the loss, on two ranks."""
    records = suite.sweep(
        "engine=native",
        "stage=0,3",
        "gpus=2",
        "workload=digits",
        f"workload.width={','.join(map(str, WIDTHS))}",
        f"measure.batch_pool={','.join(map(str, BATCHES))}",
        f"target_loss={to_target.LOSS}",
        "batch_size=32",
        "threads=1",
        "measure.ceiling=false",
        "repeats=6",
        "steps=400",
    )
    return {
        (
            record.config["workload"]["width"],
            record.config["measure"]["batch_pool"],
            int(record.config["stage"]),
        ): weighed(record)
        for record in records
    }


@claim(
    CLAIMS,
    "A42",
    "ZeRO gains more on a large data set than on a small one.",
    f"Stage 3 against stage 0 on two ranks, trained on digits to a loss of 0.3; {BATCHES[1] // BATCHES[0]} times the "
    f"data, {WIDTHS[1] // WIDTHS[0]} times the width, each alone and both: peak memory saved per rank, and time to the "
    "loss relative to stage 0. Supported if more data raise the memory saved by over 2 %, or how soon the loss is "
    f"reached by over a factor {SLOWER:g}. Control: width must raise the memory saved.",
    timed=True,
)
def gain_depends_on_data(suite: Suite) -> Finding:
    records = by_size(suite)
    few, many = BATCHES
    saved = {
        (width, batches): peak_bytes(records[width, batches, 0]) - peak_bytes(records[width, batches, 3])
        for width in WIDTHS
        for batches in BATCHES
    }
    soon = {key: to_target.times_as_soon(records[*key, 3], records[*key, 0]).value for key in saved}
    by_data = max(saved[width, many] / saved[width, few] - 1 for width in WIDTHS)
    by_model = min(saved[WIDTHS[1], batches] / saved[WIDTHS[0], batches] for batches in BATCHES)
    sooner = [soon[width, many] / soon[width, few] for width in WIDTHS]
    if by_model < 2:
        raise ExperimentError(f"the memory saved is not seen to grow with the model: {by_model:.2f} times")
    because = (
        f"With {many // few} times the data stage 3 saves {by_data:.1%} more memory, and how soon it reaches the loss "
        f"relative to DDP is {min(sooner):.2f} to {max(sooner):.2f} times what it was; {WIDTHS[1] // WIDTHS[0]} times "
        f"the width save {by_model:.1f} times as much."
    )
    numbers: dict[str, float] = {}
    for (width, batches), size in saved.items():
        what = f"width {width}, {batches} batches"
        numbers[f"{what}: peak bytes saved per rank"] = size
        numbers[f"{what}: stage 0's time to the loss over stage 3's"] = soon[width, batches]
        for stage in (0, 3):
            taken = to_target.outcome(records[width, batches, stage]).steps.value
            numbers[f"{what}: steps to the loss, stage {stage}"] = taken
    return decided(by_data > MARGIN or max(sooner) > SLOWER, because, numbers)


def peak_bytes(record: Record) -> int:
    return max(rank.peak_bytes for rank in record.memory)
