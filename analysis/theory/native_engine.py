"""Engine ``native``: what its flat buckets keep and send, to the byte, padding included.

Each parameter starts at a multiple of 64 bytes in its bucket, and a bucket is padded until it divides into N shards
that are multiples of 64 bytes. Stages 0 to 2 lay all trainable parameters, last ones first, into buckets of at most
the bucket size (25 MiB by default; frozen parameters stay as they are); a last one of more than half that size is cut
once more, so that a quarter at most comes last. Stage 3 has buckets for each unit, or for units in a row that fit the
bucket size together, and for the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, inf

from analysis.theory.setting import Optimizer, Setting, elements
from analysis.theory.theory import Copied, Theory
from results.model import Parameter, element_count

ALIGN_BYTES = 64
MIB = 1 << 20
BLOCK = 256
SCALE_BYTES = 4
"""With quantize, what is communicated of an element is 1 byte, and of each block of a shard a scale in fp32."""
PIECE, CUDA_PIECE = 1 << 16, 1 << 24
"""Elements that are quantized at a time, on a CPU and on a GPU."""
MUON_BYTES = 2
"""Of an averaged gradient, whole for its direction and all-gathered from stage 1 on: bf16."""


@dataclass(frozen=True)
class PredictedBucket:
    """Elements of one bucket, padding included."""

    size: int
    shard: int
    trainable: bool
    group: int
    """Position of what is gathered together at stage 3; -1 is the root."""
    optimizer: Optimizer
    """What is kept for its parameters, if they are trained."""


def state(setting: Setting) -> dict[str, int] | None:
    """Bytes of model state by kind in device memory; the same on every rank."""
    widths, stage, offloads = setting.widths, setting.stage, setting.offload == "optimizer"
    layout = buckets(setting)
    trained = [bucket for bucket in layout if bucket.trainable]
    whole = sum(bucket.size for bucket in trained)
    shards = sum(bucket.shard for bucket in trained)
    if stage == 3:
        master = widths.master and not offloads
        kept = sum(bucket.shard for bucket in layout if not (bucket.trainable and master))
    else:
        kept = whole + elements(setting.parameters) - elements(setting.trainable)
    secondary = setting.secondary_shard_size
    copies = communicated(setting, "weights", layout) // secondary if secondary else 0
    return {
        "params": kept * widths.param + copies,
        "master": 0 if offloads else updated(setting) * widths.master,
        "grads": (whole if stage < 2 else shards) * widths.grad,
        "optimizer": 0 if offloads else optimizer_bytes(setting),
        "buffers": setting.buffer_bytes,
    }


def host(setting: Setting) -> dict[str, int]:
    """With offload, bytes of model state by kind in host memory: the weights that are updated, their gradient and
    optimizer state, and under master weights what these are cast to."""
    if setting.offload == "none":
        return {}
    widths, own = setting.widths, updated(setting)
    return {
        "params": own * widths.param if widths.master else 0,
        "master": own * (widths.master or widths.param),
        "grads": own * widths.grad,
        "optimizer": optimizer_bytes(setting),
    }


def copied(setting: Setting) -> Copied | None:
    """With offload: the reduced gradient to the host, and the updated weights back."""
    if setting.offload == "none":
        return None
    return Copied(updated(setting) * setting.widths.grad, updated(setting) * setting.widths.param)


def updated(setting: Setting) -> int:
    """Elements that a rank updates."""
    trained = (bucket for bucket in buckets(setting) if bucket.trainable)
    return sum(bucket.size if setting.stage == 0 else bucket.shard for bucket in trained)


def optimizer_bytes(setting: Setting) -> int:
    trained = [bucket for bucket in buckets(setting) if bucket.trainable]
    kinds = [(bucket.optimizer, bucket.size if setting.stage == 0 else bucket.shard) for bucket in trained]
    return sum(kind.bytes_of_shard(count, setting.widths.moment) for kind, count in kinds)


def transient(setting: Setting) -> int:
    """Most bytes in addition to state and activations: in forward and backward, buckets that fill or fly, what is
    received, and gathered units; in the update, the directions of one bucket of matrices (Muon).

    The gradient that autograd hands over and the optimizer's own temporaries are left out; autocast's 2-byte copies
    of the weights are not.
    """
    widths, layout = setting.widths, buckets(setting)
    largest = max((bucket.size for bucket in layout if bucket.trainable), default=0)
    flying = min(int(setting.described.get("in_flight", 1)) + 1, sum(bucket.trainable for bucket in layout))
    received = flying * largest * setting.fraction * widths.grad if setting.stage >= 1 else 0
    if "gradients" in setting.quantized:  # what is sent as well
        packed = [packed_bytes(setting, bucket) for bucket in layout if bucket.trainable]
        received = flying * 2 * max(packed, default=0)
    collected = flying * largest * widths.grad if setting.stage >= 2 else 0
    gathered = gathered_bytes(setting, layout) if setting.stage == 3 else 0
    cast = 2 * elements(setting.parameters) if setting.precision.startswith("amp_") else 0
    directions = MUON_BYTES * max((bucket.size for bucket in layout if of_matrices(setting, bucket)), default=0)
    return int(max(received + collected + gathered + room_bytes(setting, layout), directions) + cast)


def room_bytes(setting: Setting, layout: Sequence[PredictedBucket]) -> int:
    """Most bytes in which a piece of a shard is quantized or dequantized in fp32, one shard at a time.

    A sum of gradients that are not in fp32 needs room for itself too; in fp32 it is made in its place.
    """
    piece = CUDA_PIECE if setting.device == "cuda" else PIECE
    gradients = max((bucket.shard for bucket in layout if bucket.trainable), default=0)
    weights = max((bucket.shard for bucket in layout), default=0)
    sums = 1 if setting.widths.grad == 4 else 2
    rooms = {"gradients": sums * min(piece, gradients), "weights": min(piece, weights)}
    return 4 * max((rooms[what] for what in setting.quantized), default=0)


def gathered_bytes(setting: Setting, layout: Sequence[PredictedBucket]) -> int:
    """Most bytes of gathered parameters at stage 3: the two largest groups and the root; with quantized weights, also
    what the gather of one group receives."""
    groups: dict[int, int] = {}
    packed: dict[int, int] = {}
    for bucket in layout:
        groups[bucket.group] = groups.get(bucket.group, 0) + bucket.size
        packed[bucket.group] = packed.get(bucket.group, 0) + packed_bytes(setting, bucket)
    root = groups.pop(-1, 0)
    whole = (sum(sorted(groups.values())[-2:]) + root) * setting.widths.param
    return whole + (max(packed.values(), default=0) if "weights" in setting.quantized else 0)


def packed_bytes(setting: Setting, bucket: PredictedBucket) -> int:
    """Of the shards of a bucket as they are communicated with quantize; a shard's last block may be short."""
    return bucket.size + SCALE_BYTES * setting.world_size * ceil(bucket.shard / BLOCK)


def sent(setting: Setting) -> float:
    """Bytes sent per rank and step; f = (N-1)/N, S the elements of all buckets, k micro-batches.

    Stage 0: 2f·S·b_g. Stage 1: f·S·(b_g+b_p). Stage 2: f·S·(k·b_g+b_p), since gradients add up in the shard.
    Stage 3: k·f·S·(2·b_p+b_g). With quantize, ``packed_bytes`` take the place of S·b_g, at stage 3 of S·b_p. From stage
    1 on, Muon adds f·2 bytes for each element of its buckets. The scalar of clipping and loss scaling is left out.
    """
    layout, micro_batches = buckets(setting), setting.accumulate
    trained = [bucket for bucket in layout if bucket.trainable]
    gradients = communicated(setting, "gradients", trained)
    if setting.stage == 0:
        return setting.fraction * 2 * gradients
    directions = MUON_BYTES * sum(bucket.size for bucket in layout if of_matrices(setting, bucket))
    reduced = gradients * (micro_batches if setting.stage >= 2 else 1)
    if setting.stage == 3:
        return setting.fraction * (reduced + directions) + gathered_sent(setting, layout)
    return setting.fraction * (reduced + communicated(setting, "weights", trained) + directions)


def gathered_sent(setting: Setting, layout: Sequence[PredictedBucket]) -> float:
    """Bytes sent per rank and step to gather parameters at stage 3, in forward and backward of each micro-batch.

    With a second copy among M ranks, (M-1)/M takes the place of f in all gathers but the first after an update; frozen
    parameters are never updated.
    """
    gathers, size = 2 * setting.accumulate, setting.secondary_shard_size
    every = communicated(setting, "weights", layout)
    if size is None:
        return setting.fraction * gathers * every
    trained = communicated(setting, "weights", [bucket for bucket in layout if bucket.trainable])
    return (size - 1) / size * (gathers * every - trained) + setting.fraction * trained


def communicated(setting: Setting, what: str, some: Sequence[PredictedBucket]) -> int:
    """Bytes of the weights or gradients of buckets as they are communicated."""
    if what in setting.quantized:
        return sum(packed_bytes(setting, bucket) for bucket in some)
    width = setting.widths.grad if what == "gradients" else setting.widths.param
    return sum(bucket.size for bucket in some) * width


def of_matrices(setting: Setting, bucket: PredictedBucket) -> bool:
    """Whether Muon updates the parameters of a bucket."""
    return bucket.optimizer is setting.matrix_optimizer


def buckets(setting: Setting) -> list[PredictedBucket]:
    """The buckets that the engine lays out."""
    bucket_mb = setting.described.get("bucket_mb")
    cap = inf if bucket_mb is None else float(bucket_mb) * MIB / setting.widths.param
    if setting.stage < 3:
        return [
            bucket
            for optimizer, chosen in setting.by_optimizer(setting.trainable[::-1])
            for bucket in lay_out(setting, chosen, cap, 0, optimizer, short_end=True)
        ]
    layout = []
    for group, members in enumerate(merge_units(setting, cap if bucket_mb is not None else 0)):
        is_root = members[0].unit == -1
        for trained in (True, False):
            same = [parameter for parameter in members if parameter.requires_grad is trained]
            for optimizer, chosen in setting.by_optimizer(same):
                layout += lay_out(setting, chosen, cap, -1 if is_root else group, optimizer)
    return layout


def merge_units(setting: Setting, cap: float) -> list[list[Parameter]]:
    """Parameters by unit; units in a row are merged while they stay within ``cap`` elements; the root comes last."""
    units: dict[int, list[Parameter]] = {}
    for parameter in setting.parameters:
        units.setdefault(parameter.unit, []).append(parameter)
    root = units.pop(-1, None)
    merged: list[list[Parameter]] = []
    for _, members in sorted(units.items()):
        if merged and elements(merged[-1]) + elements(members) <= cap:
            merged[-1] += members
        else:
            merged.append(list(members))
    return [*merged, root] if root else merged


def lay_out(
    setting: Setting,
    parameters: list[Parameter],
    cap: float,
    group: int,
    optimizer: Optimizer,
    *,
    short_end: bool = False,
) -> list[PredictedBucket]:
    """Cuts parameters, in their order, into buckets of at most ``cap`` elements."""
    align = ALIGN_BYTES // setting.widths.param
    cuts = packed([element_count(parameter.shape) for parameter in parameters], cap, align)
    if short_end:
        cuts = shortened(cuts, cap, align)
    shards = [round_up(ceil(extent(cut, align) / setting.world_size), align) for cut in cuts]
    trained = bool(parameters) and parameters[0].requires_grad
    return [PredictedBucket(shard * setting.world_size, shard, trained, group, optimizer) for shard in shards]


def packed(counts: Sequence[int], cap: float, align: int) -> list[list[int]]:
    """Elements of the parameters of each bucket; one that is larger than the cap has its own."""
    cuts: list[list[int]] = []
    end = 0
    for count in counts:
        start = round_up(end, align)
        if not cuts or start + count > cap:
            cuts.append([])
            start = 0
        cuts[-1].append(count)
        end = start + count
    return cuts


def shortened(cuts: list[list[int]], cap: float, align: int) -> list[list[int]]:
    """A last bucket of more than half the cap is cut in two; the second has a quarter at most."""
    if not cuts or extent(cuts[-1], align) <= cap / 2:
        return cuts
    *before, last = cuts
    taken = accumulate(round_up(count, align) for count in reversed(last[1:]))
    at = len(last) - sum(size <= cap / 4 for size in taken)
    return [*before, last[:at], last[at:]] if at < len(last) else cuts


def extent(counts: list[int], align: int) -> int:
    """Elements that parameters take one after another, each at a multiple of ``align``."""
    return sum(round_up(count, align) for count in counts[:-1]) + counts[-1]


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


THEORY = Theory(
    state=state,
    transient=transient,
    sent=sent,
    host=host,
    copied=copied,
    gradients_kept=(0, 1),
    exact_peak=(0, 1, 2, 3),
    knows_zero_plus_plus=True,
)
