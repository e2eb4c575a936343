"""Engine ``deepspeed``: what its engine (stage 0) and its ZeRO optimizers keep and send.

Stages 1 and 2 flatten the trained parameters in their given order, padded to a multiple of 2N, and keep a shard of
them a second time as what the optimizer updates: fp32, or bf16 where all is. Their gradients are views of whole
parameters' gradients, so a parameter that reaches into a shard is held whole. Stage 3 cuts each parameter by itself
into ceil(n/N) elements, and keeps these twice as well.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import ceil

from analysis.theory.setting import Setting, elements
from analysis.theory.theory import Theory
from results.model import Parameter, element_count


def state(known: Setting) -> dict[str, int] | None:
    """Bytes of model state by kind on the largest rank."""
    if known.stage == 0:
        return _whole(known)
    return _partitioned(known) if known.stage == 3 else _flat(known)


def _whole(known: Setting) -> dict[str, int]:
    widths, trained = known.widths, elements(known.trainable)
    return {
        "params": elements(known.parameters) * widths.param,
        "master": trained * widths.master,
        "grads": trained * widths.grad,
        "optimizer": _optimizer(known, trained, tensors=len(known.trainable)),
        "buffers": known.buffer_bytes,
    }


def _flat(known: Setting) -> dict[str, int]:
    widths, size = known.widths, known.world_size
    sizes = [element_count(parameter.shape) for parameter in known.trainable]
    shard = _shard(known)
    ends = list(pairwise(accumulate(sizes, initial=0)))
    reaching = [
        sum(end - start for start, end in ends if start < (rank + 1) * shard and end > rank * shard)
        for rank in (range(size) if known.rank is None else [known.rank])
    ]
    return {
        "params": (shard * size + elements(known.parameters) - sum(sizes)) * widths.param,
        "master": shard * (widths.master or widths.param),
        "grads": max(reaching) * widths.grad,
        "optimizer": _optimizer(known, shard, tensors=1),
        "buffers": known.buffer_bytes,
    }


def _partitioned(known: Setting) -> dict[str, int]:
    widths, size = known.widths, known.world_size
    kept, trained = _cut(known.parameters, size), _cut(known.trainable, size)
    return {
        "params": kept * widths.param,
        "master": trained * (widths.master or widths.param),
        "grads": trained * widths.grad,
        "optimizer": _optimizer(known, trained, tensors=1),
        "buffers": known.buffer_bytes,
    }


def _optimizer(known: Setting, updated: int, tensors: int) -> int:
    counters = known.optimizer.counter_bytes if known.options.get("kernel") == "torch" else 0
    return updated * known.optimizer.moments * known.widths.moment + tensors * counters


def transient(known: Setting) -> int:
    """Most bytes beside state and activations: a reduction bucket, which is allocated whole, twice where it overlaps.

    Stage 3 also gathers what it prefetches, at most all parameters.
    """
    configured = known.described.get("configuration")
    zero = configured.get("zero_optimization", {}) if isinstance(configured, dict) else {}
    bucket = int(zero.get("reduce_bucket_size", 0)) if known.stage else elements(known.trainable)
    gathered = elements(known.parameters) * known.widths.param if known.stage == 3 else 0
    cast = 2 * elements(known.parameters) if known.precision.startswith("amp_") else 0
    return bucket * known.widths.grad * (2 if zero.get("overlap_comm") else 1) + gathered + cast


def sent(known: Setting) -> float:
    """Bytes sent per rank and step with bandwidth-optimal collectives; f = (N-1)/N.

    Stages 0 to 2 all-reduce gradients, 2f·P·b_g, stage 2 those of each micro-batch; stages 1 and 2 all-gather what was
    trained, f·P·b_p, in shards padded together. Stage 3 is the paper's, which is the most: it gathers each parameter
    twice for each micro-batch, but for those that forward gathered last; there P counts the padding of each parameter
    to N equal parts. The checks for overflow, one element each, are left out.
    """
    size, widths = known.world_size, known.widths
    if known.stage == 3:
        gathered, reduced = _cut(known.parameters, size), _cut(known.trainable, size)
        return known.fraction * known.accumulate * size * (2 * gathered * widths.param + reduced * widths.grad)
    gradients = elements(known.trainable) * widths.grad
    updated = size * _shard(known) * widths.param if known.stage else 0
    return known.fraction * (2 * gradients * (known.accumulate if known.stage == 2 else 1) + updated)


def _shard(known: Setting) -> int:
    """Elements of a rank's shard at stages 1 and 2."""
    return ceil(elements(known.trainable) / (2 * known.world_size)) * 2


def _cut(parameters: list[Parameter], size: int) -> int:
    """Elements of a rank's part at stage 3, where each parameter is cut by itself."""
    return sum(ceil(element_count(parameter.shape) / size) for parameter in parameters)


THEORY = Theory(state=state, transient=transient, sent=sent, gradients_kept=(3,))
