"""The memory of a rank, by what it is for: at rest, at the peak of a step, and predicted."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.metrics.offload import Offloaded, offloaded
from analysis.metrics.offload import columns as offload_columns
from analysis.theory import (
    predict_cast,
    predict_paper,
    predict_rest,
    predict_sent,
    predict_state,
    predict_transient,
    predicts_handover,
)
from results.memory import RankMemory
from results.model import ComputeMemory
from results.record import Record, world_size

KINDS = ("params", "master", "grads", "optimizer", "buffers")
"""Of model state."""

PARTS = {
    "state": (*KINDS, "host"),
    "gathered": ("gathered",),
    "communication": ("unreduced", "communication"),
    "activations": ("activations", "batch"),
    "temporaries": ("temporaries", "other", "unseen"),
}
"""What the memory of a step is shown as, of the kinds that are counted (docs/explanation/memory.md)."""
COUNTED = [kind for kinds in PARTS.values() for kind in kinds]


@dataclass(frozen=True)
class Memory:
    """Bytes of one cell; None where nothing was measured or there is no formula."""

    state: dict[str, int] | None
    """Model state in device memory by kind, on the rank that holds most of it."""
    predicted: dict[str, int] | None
    peak_bytes: int | None
    """Largest allocation of any rank during a step."""
    transient_bytes: int | None
    """Predicted: what the engine needs at most in addition to state and activations."""
    sent_bytes: float | None
    """Predicted: bytes sent per rank and step by bandwidth-optimal collectives."""
    paper_bytes: float | None
    """Model state by the ZeRO paper's formulas, which know no engine: a perfect partition, no padding."""
    fullest: RankMemory | None = None
    """The rank with the largest peak."""
    rest_bytes: int | None = None
    """Predicted: the model state that is there between steps."""
    working_bytes: int | None = None
    """Predicted: the transient bytes without autocast's copies of the weights, which are counted as activations."""
    compute: ComputeMemory | None = None
    """Predicted: what a single process needs in addition to model state for the same micro-batch."""
    handover_bytes: int = 0
    """Predicted: the gradient that autograd hands over; 0 where ``working_bytes`` has it."""
    offloaded: Offloaded | None = None
    """Model state in host memory; None without offload."""
    root_share: float | None = None
    """Of the parameters: in no sharding unit, so that stage 3 keeps them whole; None at other stages."""
    largest_unit_share: float | None = None
    """Of the parameters: in the largest sharding unit, which stage 3 gathers at once; None at other stages."""

    @property
    def state_bytes(self) -> int | None:
        return None if self.state is None else sum(self.state.values())

    @property
    def predicted_bytes(self) -> int | None:
        return None if self.predicted is None else sum(self.predicted.values())

    def counted_bytes(self, rank: RankMemory) -> int:
        """Model state of a rank that its device's allocator counts: on a CPU, with what is in host memory."""
        is_counted = self.offloaded is not None and self.offloaded.host_is_device
        return rank.model_state_bytes + (sum(rank.host_state_bytes.values()) if is_counted else 0)

    @property
    def counted_predicted_bytes(self) -> int | None:
        """Predicted model state that the device's allocator counts: on a CPU, with what is in host memory."""
        in_host = self.offloaded.counted_predicted_bytes if self.offloaded else 0
        return None if self.predicted_bytes is None or in_host is None else self.predicted_bytes + in_host

    @property
    def peak_predicted_bytes(self) -> int | None:
        """The sum of what is predicted at most; None unless all of it is."""
        state, working, compute = self.counted_predicted_bytes, self.working_bytes, self.compute
        if state is None or working is None or compute is None:
            return None
        single_process = compute.activation_bytes + compute.temporary_bytes + compute.batch_bytes
        return state + working + self.handover_bytes + single_process

    @property
    def slack_bytes(self) -> int | None:
        """Reserved by CUDA's caching allocator beyond what was allocated, both at their most; None on a CPU."""
        rank = self.fullest
        return None if rank is None or rank.reserved_bytes is None else rank.reserved_bytes - rank.peak_bytes

    @property
    def working_predicted_bytes(self) -> int | None:
        """Predicted in addition to state and activations: gathered parameters, buckets and the handed-over gradient."""
        has_prediction = self.working_bytes is not None and self.compute is not None
        return (self.working_bytes or 0) + self.handover_bytes if has_prediction else None

    @property
    def activations_predicted_bytes(self) -> int | None:
        """Predicted: what a single process keeps for backward, and the batch."""
        return self.compute.activation_bytes + self.compute.batch_bytes if self.compute else None

    @property
    def temporaries_predicted_bytes(self) -> int | None:
        return self.compute.temporary_bytes if self.compute else None

    @property
    def is_broken_down(self) -> bool:
        """Whether the peak is recorded by kind."""
        return self.fullest is not None and bool(self.fullest.peak_by_kind)

    def peak_of(self, kind: str) -> int:
        """Bytes of one kind at the peak of the rank with the largest one; 0 where none was counted."""
        return self.fullest.peak_by_kind.get(kind, 0) if self.fullest else 0

    def part(self, name: str) -> int:
        """Bytes of one of ``PARTS`` at the peak."""
        return sum(self.peak_of(kind) for kind in PARTS[name])

    @property
    def residual(self) -> float | None:
        """(measured - predicted) / predicted."""
        if self.state_bytes is None or not self.predicted_bytes:
            return None
        return self.state_bytes / self.predicted_bytes - 1


def memory(record: Record) -> Memory:
    """The memory of a cell: the largest rank decides, ranks are never averaged."""
    largest = max(record.memory, key=lambda rank: rank.model_state_bytes, default=None)
    paper, transient = predict_paper(record), predict_transient(record)
    compute = record.model.compute_memory if record.model else None
    divided = record.model if record.config.get("stage") == 3 else None
    return Memory(
        state=largest.state_bytes if largest else None,
        predicted=predict_state(record),
        peak_bytes=max((rank.peak_bytes for rank in record.memory), default=None),
        transient_bytes=transient,
        sent_bytes=predict_sent(record),
        paper_bytes=paper[0] if paper else None,
        fullest=max(record.memory, key=lambda rank: rank.peak_bytes, default=None),
        rest_bytes=predict_rest(record),
        offloaded=offloaded(record),
        working_bytes=None if transient is None else transient - predict_cast(record),
        compute=compute,
        root_share=divided.root_share if divided else None,
        largest_unit_share=divided.largest_unit_share if divided else None,
        handover_bytes=compute.handover_bytes if compute and not predicts_handover(record) else 0,
    )


def columns(cell_memory: Memory) -> dict[str, float | str | None]:
    """Columns other than model state: bytes at rest and at the peak by kind, on the fullest rank."""
    fullest, compute = cell_memory.fullest, cell_memory.compute
    rest = fullest.rest_by_kind if fullest else {}
    peak = fullest.peak_by_kind if fullest else {}
    return {
        "rest_bytes": fullest.rest_bytes if fullest else None,
        "rest_predicted_bytes": cell_memory.rest_bytes,
        "peak_phase": fullest.peak_phase if fullest else None,
        "peak_predicted_bytes": cell_memory.peak_predicted_bytes,
        "working_predicted_bytes": cell_memory.working_bytes,
        "handover_predicted_bytes": cell_memory.handover_bytes if compute else None,
        "activations_predicted_bytes": compute.activation_bytes if compute else None,
        "temporaries_predicted_bytes": compute.temporary_bytes if compute else None,
        "batch_predicted_bytes": compute.batch_bytes if compute else None,
        "root_share": cell_memory.root_share,
        "largest_unit_share": cell_memory.largest_unit_share,
        "slack_bytes": cell_memory.slack_bytes,
        "beyond_allocator_bytes": fullest.beyond_allocator_bytes if fullest else None,
        **offload_columns(cell_memory.offloaded),
        **{f"rest_{kind}_bytes": rest.get(kind, 0) if rest else None for kind in COUNTED},
        **{f"peak_{kind}_bytes": peak.get(kind, 0) if peak else None for kind in COUNTED},
    }


COLUMNS = list(columns(Memory(None, None, None, None, None, None)))


def limit_bytes(record: Record) -> float | None:
    """The memory that a rank can use: its GPU's, or an equal share of the host's; None where it is not recorded."""
    if record.resolved.get("device") != "cuda":
        total = record.environment.get("memory_bytes")
        return float(total) / world_size(record) if isinstance(total, int | float) else None
    totals = [gpu.get("memory.total") for gpu in record.environment.get("gpus") or [] if isinstance(gpu, dict)]
    sizes = [float(total.split()[0]) * 2**20 for total in totals if isinstance(total, str) and _is_mib(total)]
    return min(sizes, default=None)


def _is_mib(total: str) -> bool:
    number, _, unit = total.partition(" ")
    return unit == "MiB" and number.replace(".", "", 1).isdigit()
