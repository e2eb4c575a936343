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

from analysis.theory.setting import Setting, elements
from analysis.theory.theory import Theory
from results.model import Parameter, element_count

ALIGN_BYTES = 64
MIB = 1 << 20


@dataclass(frozen=True)
class Bucket:
    """Elements of one bucket, padding included."""

    size: int
    shard: int
    trainable: bool
    group: int
    """Position of what is gathered together at stage 3; -1 is the root."""


def state(known: Setting) -> dict[str, int] | None:
    """Bytes of model state by kind; the same on every rank."""
    widths, stage = known.widths, known.stage
    found = buckets(known)
    trained = [bucket for bucket in found if bucket.trainable]
    whole = sum(bucket.size for bucket in trained)
    shards = sum(bucket.shard for bucket in trained)
    updated = whole if stage == 0 else shards
    if stage == 3:
        kept = sum(bucket.shard for bucket in found if not (bucket.trainable and widths.master))
    else:
        kept = whole + elements(known.parameters) - elements(known.trainable)
    counters = len(trained) * known.optimizer.counter_bytes
    return {
        "params": kept * widths.param,
        "master": updated * widths.master,
        "grads": (whole if stage < 2 else shards) * widths.grad,
        "optimizer": updated * known.optimizer.moments * widths.moment + counters,
        "buffers": known.buffer_bytes,
    }


def transient(known: Setting) -> int:
    """Most bytes beside state and activations: buckets that fill or fly, what is received, gathered units.

    The gradient that autograd hands over and the optimizer's own temporaries are left out; autocast's 2-byte copies
    of the weights are not.
    """
    widths, found = known.widths, buckets(known)
    largest = max((bucket.size for bucket in found if bucket.trainable), default=0)
    flying = min(int(known.described.get("in_flight", 1)) + 1, sum(bucket.trainable for bucket in found))
    received = flying * largest * known.fraction * widths.grad if known.stage >= 1 else 0
    collected = flying * largest * widths.grad if known.stage >= 2 else 0
    groups: dict[int, int] = {}
    for bucket in found:
        groups[bucket.group] = groups.get(bucket.group, 0) + bucket.size
    root = groups.pop(-1, 0)
    gathered = sum(sorted(groups.values())[-2:]) + root if known.stage == 3 else 0
    cast = 2 * elements(known.parameters) if known.precision.startswith("amp_") else 0
    return int(received + collected + gathered * widths.param + cast)


def sent(known: Setting) -> float:
    """Bytes sent per rank and step; f = (N-1)/N, S the elements of all buckets, k micro-batches.

    Stage 0: 2f·S·b_g. Stage 1: f·S·(b_g+b_p). Stage 2: f·S·(k·b_g+b_p), since gradients add up in the shard.
    Stage 3: k·f·S·(2·b_p+b_g). The scalar of clipping and loss scaling is left out.
    """
    widths, micro_batches = known.widths, known.accumulate
    found = buckets(known)
    every = sum(bucket.size for bucket in found)
    trained = sum(bucket.size for bucket in found if bucket.trainable)
    if known.stage == 0:
        return known.fraction * 2 * trained * widths.grad
    reduced = trained * widths.grad * (micro_batches if known.stage >= 2 else 1)
    gathered = 2 * micro_batches * every if known.stage == 3 else trained
    return known.fraction * (reduced + gathered * widths.param)


def buckets(known: Setting) -> list[Bucket]:
    """The buckets that the engine lays out."""
    bucket_mb = known.described.get("bucket_mb")
    cap = inf if bucket_mb is None else float(bucket_mb) * MIB / known.widths.param
    if known.stage < 3:
        return lay_out(known, known.trainable[::-1], cap, 0, short_end=True)
    found = []
    for group, members in enumerate(merge_units(known, cap if bucket_mb is not None else 0)):
        is_root = members[0].unit == -1
        for trained in (True, False):
            same = [parameter for parameter in members if parameter.requires_grad is trained]
            found += lay_out(known, same, cap, -1 if is_root else group)
    return found


def merge_units(known: Setting, cap: float) -> list[list[Parameter]]:
    """Parameters by unit; units in a row are merged while they stay within ``cap`` elements; the root comes last."""
    units: dict[int, list[Parameter]] = {}
    for parameter in known.parameters:
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
    known: Setting, parameters: list[Parameter], cap: float, group: int, *, short_end: bool = False
) -> list[Bucket]:
    """Cuts parameters, in their order, into buckets of at most ``cap`` elements."""
    align = ALIGN_BYTES // known.widths.param
    cuts = packed([element_count(parameter.shape) for parameter in parameters], cap, align)
    if short_end:
        cuts = shortened(cuts, cap, align)
    shards = [round_up(ceil(extent(cut, align) / known.world_size), align) for cut in cuts]
    trained = bool(parameters) and parameters[0].requires_grad
    return [Bucket(shard * known.world_size, shard, trained, group) for shard in shards]


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
    """A last bucket of more than half the cap is cut in two, of which the second has a quarter at most."""
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


THEORY = Theory(state=state, transient=transient, sent=sent, gradients_kept=(0, 1), exact_peak=(0, 1, 2, 3))
