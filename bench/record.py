"""The Record: everything measured about one cell, as plain data that outlives the code that wrote it.

A record is one JSON file. It is written atomically, read strictly (an unknown or missing field is an
error that names it) and needs nothing but the standard library, so that analysis runs where torch is
not installed.

History of ``SCHEMA_VERSION``:
  1  first version
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import statistics
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA_VERSION = 1

Status = Literal["ok", "failed", "timeout", "oom", "unsupported", "unavailable", "parity_failed", "interrupted"]
STATUSES: tuple[str, ...] = typing.get_args(Status)


NO_ENGINE = "-"
"""The name of the engine in the record of a cell that trains nothing (``workload=collectives``)."""


class RecordError(ValueError):
    """A file is not a record that this version can read; the message names the file and the field."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of the model, in the order of ``module.named_parameters()``."""

    name: str
    shape: list[int]
    requires_grad: bool
    unit: int
    """Index of the sharding unit that owns it; -1 for what is left to the root."""


@dataclass(frozen=True)
class Model:
    """What was trained and on what data, as counted on the built module."""

    workload: str
    unit: str
    """What one sample is counted in for throughput: ``sample`` or ``token``."""
    units_per_sample: int
    flops_per_unit: float
    """Forward and backward floating-point operations per unit, counted by running one sample."""
    parameters: list[Parameter]
    buffer_bytes: int
    data: str
    synthetic_data: bool
    data_digest: str
    """SHA-256 of the tensors of the first global batch."""
    activation_bytes: int | None = None
    """What forward of a rank's micro-batch leaves for backward, counted at the allocator of a single process."""

    @property
    def parameter_count(self) -> int:
        return sum(element_count(parameter.shape) for parameter in self.parameters)


WIDEST_TOLERANCE = 0.15


@dataclass(frozen=True)
class Parity:
    """Training compared with a single process on the same global batches."""

    steps: int
    loss_error: float
    """Largest relative error of a step's global loss."""
    weights_error: float
    """Distance between the final weights over the length of the reference's path (docs/method.md)."""
    tolerance: float
    losses: list[float]
    reference_losses: list[float]
    resolution: float | None = None
    """Error of one process whose initial weights differ in the last bit: no two runs of this model agree better.
    Measured only where the usual tolerance is missed, which it then widens."""
    weights_digest: str = ""
    """SHA-256 of the final weights' bytes, by which runs are compared bit by bit."""

    @property
    def error(self) -> float:
        """The larger of the two errors; NaN if either is."""
        errors = (self.loss_error, self.weights_error)
        return math.nan if any(map(math.isnan, errors)) else max(errors)

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # False for NaN

    def widened(self, resolution: float) -> Parity:
        """The same, judged as finely as the model itself allows; a resolution that is no number changes nothing.

        A model that amplifies rounding beyond WIDEST_TOLERANCE cannot be judged, and no engine passes on it.
        """
        tolerance = self.tolerance
        if resolution > tolerance:  # False for NaN
            tolerance = max(tolerance, min(WIDEST_TOLERANCE, resolution))
        return dataclasses.replace(self, tolerance=tolerance, resolution=resolution)


@dataclass(frozen=True)
class RankMemory:
    """Bytes held by one rank, counted at the allocator in a launch of its own."""

    state_bytes: dict[str, int]
    """Model state between backward and update, by kind: params, master, grads, optimizer, buffers."""
    rest_bytes: int
    """Allocated when the step began."""
    peak_bytes: int
    """Largest allocation during a step: the median over the steps that were watched."""
    reserved_bytes: int | None = None
    """Held by CUDA's caching allocator at the peak; None on a CPU."""
    step_peaks_bytes: list[int] = field(default_factory=list)
    """Peak of each watched step. They differ where a communication thread lets go of a buffer sooner or later."""
    rest_by_kind: dict[str, int] = field(default_factory=dict)
    """What ``rest_bytes`` is made of, as ``bench.measure.blocks.KINDS`` names it; sums to it."""
    peak_by_kind: dict[str, int] = field(default_factory=dict)
    """The same of ``peak_bytes``."""
    peak_phase: str = ""
    """What the step was at when it needed most: ``forward``, ``backward`` or ``update``."""
    beyond_allocator_bytes: int | None = None
    """Held on the GPU by this process beyond ``reserved_bytes``; None on a CPU, and where the driver does not say."""

    @property
    def model_state_bytes(self) -> int:
        return sum(self.state_bytes.values())


@dataclass(frozen=True)
class Collective:
    """Collectives of one step that are alike, as a rank called them; ``send`` and ``recv`` are point to point."""

    kind: str
    """all_reduce, reduce_scatter, all_gather, broadcast, send, recv, ...: ``bench.measure.comm.CALLS``."""
    dtype: str
    """As torch names it, such as ``float32``; empty for a barrier."""
    elements: int
    """Of the whole array: what each rank has after an all-gather, and before a reduce-scatter."""
    group_size: int
    count: int

    @property
    def size_bytes(self) -> int:
        """Of the whole array of one of them."""
        bits = re.search(r"\d+", self.dtype)  # such as 16 in bfloat16; a bool is a byte
        return self.elements * (int(bits.group()) // 8 if bits else 1)

    @property
    def total_bytes(self) -> int:
        return self.count * self.size_bytes


@dataclass(frozen=True)
class RankSamples:
    """Raw samples of one rank in one launch; every list has one entry per step."""

    forward_backward_s: list[float]
    optimizer_s: list[float]
    warmup_step_s: list[float]
    wall_s: float
    """From the barrier before the first measured step to the end of the last one."""
    losses: list[float]
    """Mean loss over this rank's share of each measured step's global batch."""
    backlog_s: float | None = None
    """What a GPU still had to do when the host had launched the last measured step; None on a CPU."""

    def step_times_s(self) -> list[float]:
        return [a + b for a, b in zip(self.forward_backward_s, self.optimizer_s, strict=True)]


@dataclass(frozen=True)
class CollectiveTimes:
    """One collective at one size, timed by itself."""

    kind: str
    """all_reduce, reduce_scatter, all_gather, broadcast or all_to_all."""
    size_bytes: int
    """Of the whole array: what each rank has after an all-gather, and before a reduce-scatter."""
    times_s: list[float]
    """Of each iteration: the slowest rank's."""


ENOUGH_LAUNCHES = 6
"""The fewest launches whose range covers the median with 95 % probability: 1 - 2*(1/2)^6 = 96.9 %."""


@dataclass(frozen=True)
class Launch:
    """One fresh launch of all ranks: the independent sample of every statistic."""

    round: int
    started_at: str
    seconds: dict[str, float]
    """Where this launch's time went on the slowest rank, and ``total_s`` as the parent saw it."""
    ranks: list[RankSamples]
    servers: list[dict[str, Any]] = field(default_factory=list)
    """What each parameter server counted."""
    conditions: dict[str, float] = field(default_factory=dict)
    """What may have disturbed the measured steps, as counted around them (docs/method.md); absent where unknown."""
    foreign: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the other processes that used most meanwhile, by name."""
    collective_times: list[CollectiveTimes] = field(default_factory=list)
    """What ``workload=collectives`` measures; it has no ``ranks``, since it takes no steps."""

    def step_times_s(self) -> list[float]:
        """Time of each measured step: the slowest rank's, of those that had that many steps."""
        ranks = [rank.step_times_s() for rank in self.ranks]
        most = max(map(len, ranks), default=0)
        return [max(times[step] for times in ranks if step < len(times)) for step in range(most)]

    def rank_quartiles_s(self) -> list[float]:
        """The quartiles of a rank's step times, mean over ranks."""
        quartiles = [statistics.quantiles(rank.step_times_s() * 2, method="inclusive") for rank in self.ranks]
        return [statistics.fmean(values) for values in zip(*quartiles, strict=True)]


@dataclass(frozen=True)
class Ceiling:
    """What a rank reaches in matrix products alone, all ranks of the cell at once: the measured peak of MFU."""

    flops_per_s: float
    """Of each rank."""
    dtype: str
    size: int
    """Rows and columns of the square matrices."""
    conditions: dict[str, float] = field(default_factory=dict)
    """As of a launch."""


@dataclass(frozen=True)
class Trial:
    """One batch size that a search tried."""

    batch: int
    """Samples per step and rank."""
    peak_bytes: int | None
    """Most that any rank had allocated in a watched step; None where a rank ran out of memory."""
    fits: bool


@dataclass(frozen=True)
class Search:
    """The search for the largest batch that fits a memory limit (``bench.search``), as far as it got."""

    limit_bytes: int | None
    """Per rank; None: all that the GPU has."""
    granule: int
    """Only multiples of it are tried."""
    most: int
    """No larger batch is tried."""
    tried: list[Trial] = field(default_factory=list)

    @property
    def smallest_unfit(self) -> int | None:
        """The smallest batch seen not to fit; None if all that was tried did."""
        return min((trial.batch for trial in self.tried if not trial.fits), default=None)

    @property
    def largest_fit(self) -> int:
        """The largest batch seen to fit, below all seen not to; 0 if none did."""
        beyond = self.smallest_unfit
        fits = (trial.batch for trial in self.tried if trial.fits)
        return max((batch for batch in fits if beyond is None or batch < beyond), default=0)

    @property
    def peak_bytes(self) -> int | None:
        """The peak at the largest batch that fits."""
        return next((trial.peak_bytes for trial in self.tried if trial.batch == self.largest_fit), None)


@dataclass(frozen=True)
class Spread:
    """A value and the range in which its samples lie."""

    value: float
    low: float
    high: float


RESOLUTION = 0.02
"""Share of a step by which the parts that it is attributed to may be off."""


@dataclass(frozen=True)
class StepParts:
    """What one profiled step of one rank was made of. From ``compute_s`` to ``host_s`` the parts exclude each other."""

    step_s: float
    """By the clock that times unprofiled steps."""
    compute_s: float
    """Forward and backward."""
    exposed_s: float
    """Communication, every rank having called it, and no computation."""
    straggler_s: float
    """The same, while a rank had not called it yet."""
    optimizer_s: float
    data_s: float
    """Making the batch, which timed steps find ready."""
    host_s: float
    communication_s: float
    """All, beside computation or not."""
    overlapped_s: float
    """Of which computation ran beside it."""

    @property
    def parts_s(self) -> dict[str, float]:
        names = ("compute", "exposed", "straggler", "optimizer", "data", "host")
        return {name: getattr(self, f"{name}_s") for name in names}


@dataclass(frozen=True)
class Attribution:
    """Where the time of steps goes, from a profiled launch and from launches whose collectives send nothing."""

    steps: list[list[StepParts]] = field(default_factory=list)
    """Of each rank; from the profiled launch."""
    straggler_unknown: str = ""
    """Why start skew cannot be told from transfer, which is then all ``exposed_s``; empty if it can."""
    unprofiled: str = ""
    """Why there are no ``steps``."""
    silent: list[Launch] = field(default_factory=list)
    """Timed like ``Record.launches``, one beside each, but nothing is sent and nobody waits (fake process group)."""
    not_silenced: str = ""
    """Why there are no ``silent`` launches."""

    def profiled_s(self) -> Spread | None:
        """Exposed communication and waiting for stragglers, mean over ranks: median and range over profiled steps."""
        waits = [
            statistics.fmean(part.exposed_s + part.straggler_s for part in ranks)
            for ranks in zip(*self.steps, strict=True)
        ]
        return Spread(statistics.median(waits), min(waits), max(waits)) if waits else None

    def removed_s(self, launches: list[Launch]) -> Spread | None:
        """The same without a profiler: how much longer a step takes (mean over ranks) than where nothing is sent.

        Median over rounds; the range is from quartile to quartile of steps, in any round.
        """
        real = {launch.round: launch for launch in launches}
        pairs = [(real[launch.round], launch) for launch in self.silent if launch.round in real]
        found = [(sent.rank_quartiles_s(), silent.rank_quartiles_s()) for sent, silent in pairs]
        if not found:
            return None
        return Spread(
            statistics.median(sent[1] - silent[1] for sent, silent in found),
            min(sent[0] - silent[2] for sent, silent in found),
            max(sent[2] - silent[0] for sent, silent in found),
        )

    def unattributed(self) -> float:
        """Largest share of a rank's median step that its parts miss or count twice."""
        gaps = [[abs(1 - sum(part.parts_s.values()) / part.step_s) for part in steps] for steps in self.steps if steps]
        return max(map(statistics.median, gaps), default=0.0)

    def disagrees(self, launches: list[Launch]) -> bool:
        """Whether parts do not add up to the step, or the two ways to exposed communication lie apart, by over 2 %.

        They lie apart where their ranges do, by that share of a profiled step.
        """
        one, other = self.profiled_s(), self.removed_s(launches)
        if self.unattributed() > RESOLUTION:
            return True
        if one is None or other is None:
            return False
        step_s = statistics.median(part.step_s for steps in self.steps for part in steps)
        return max(one.low - other.high, other.low - one.high) > RESOLUTION * step_s


@dataclass(frozen=True)
class RankEnd:
    """How a rank of a failed launch ended, and the last thing it said."""

    rank: int
    ending: str
    last_words: str


@dataclass
class Record:
    """One cell: what was asked, what took effect, what was measured, and how it ended."""

    cell_id: str
    sweep_id: str
    config: dict[str, Any]
    """Every knob as it was set; null means the default of the engine or workload."""
    resolved: dict[str, Any]
    """What took effect: world size, threads, device, backend, batch sizes, and the engine's own description."""
    environment: dict[str, Any]
    status: Status = "interrupted"
    reason: str = ""
    verdicts: list[str] = field(default_factory=list)
    verdict_reasons: dict[str, str] = field(default_factory=dict)
    """By verdict, what was seen and what to do about it; for those that depend on the launches' conditions."""
    ceiling: Ceiling | None = None
    """None where it was not measured."""
    model: Model | None = None
    parity: Parity | None = None
    memory: list[RankMemory] = field(default_factory=list)
    """One entry per rank, from the launch that checks the cell; empty where it was not measured."""
    collectives: list[Collective] | None = None
    """Rank 0's collectives in one step, from the same launch; None where they were not counted."""
    collectives_by_rank: list[list[Collective]] = field(default_factory=list)
    """Every rank's, where they are not all alike."""
    launches: list[Launch] = field(default_factory=list)
    search: Search | None = None
    """Of a cell that looks for its largest batch; ``memory`` is then that of the largest seen to fit."""
    attribution: Attribution | None = None
    """None where it was not measured."""
    failure: list[RankEnd] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    @property
    def global_batch(self) -> int:
        """Samples per step over all ranks."""
        return int(self.resolved["global_batch"])

    @property
    def final_loss(self) -> float | None:
        """Mean over the ranks of the last launch's last measured loss."""
        if not self.launches or not self.launches[-1].ranks:
            return None
        losses = [rank.losses[-1] for rank in self.launches[-1].ranks]
        return sum(losses) / len(losses)

    def write(self, path: Path) -> None:
        """Writes the record so that a reader, or a crash, sees the old file or the new one, never a part."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with open(partial, "w", encoding="utf-8") as file:
                json.dump(dataclasses.asdict(self), file, allow_nan=True)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Reads one record. Raises RecordError, naming the file and the field, if it is not one."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecordError(f"{path}: not a readable record: {error}") from error
        if not isinstance(document, dict):
            raise RecordError(f"{path}: not a record: the file holds no JSON object")
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RecordError(f"{path}: schema_version is {version!r}; this version reads {SCHEMA_VERSION}")
        try:
            record = decode(document, cls, "record")
        except ValueError as error:
            raise RecordError(f"{path}: {error}") from error
        assert isinstance(record, cls)
        return record


def element_count(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def decode(value: Any, kind: Any, where: str) -> Any:
    """Turns parsed JSON into ``kind`` (a dataclass, a container of them, or a plain type), checking every type."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in typing.get_args(kind):
            return None
        return decode(value, next(part for part in typing.get_args(kind) if part is not type(None)), where)
    if origin is Literal:
        if value not in typing.get_args(kind):
            raise ValueError(f"{where}: {value!r} is not one of {', '.join(map(str, typing.get_args(kind)))}")
        return value
    if origin is list:
        (item,) = typing.get_args(kind)
        return [decode(entry, item, f"{where}[{index}]") for index, entry in enumerate(expect(value, list, where))]
    if origin is dict:
        _, item = typing.get_args(kind)
        return {key: decode(entry, item, f"{where}.{key}") for key, entry in expect(value, dict, where).items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(expect(value, dict, where), kind, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return expect(value, kind, where)


_type_hints = functools.cache(typing.get_type_hints)


def _decode_dataclass(document: dict[str, Any], kind: Any, where: str) -> Any:
    hints = _type_hints(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    unknown = sorted(set(document) - set(fields))
    if unknown:
        raise ValueError(f"{where}: unknown field {unknown[0]!r}")
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in document:
            raise ValueError(f"{where}: field {name!r} is missing")
    return kind(**{name: decode(value, hints[name], f"{where}.{name}") for name, value in document.items()})


def expect(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}: expected {kind.__name__}, found {type(value).__name__}")
    return value
