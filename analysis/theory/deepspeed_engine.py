"""Engine ``deepspeed``: what its engine (stage 0) and its ZeRO optimizers keep and send.

Stages 1 and 2 flatten the trained parameters in their given order, padded to a multiple of 2N, and keep a shard of
them a second time as what the optimizer updates: fp32, or bf16 where all is. Their gradients are views of whole
parameters' gradients, so a parameter that reaches into a shard is kept whole. Stage 3 cuts each parameter by itself
into ceil(n/N) elements, and keeps these twice as well.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import ceil

from analysis.theory.setting import Optimizer, Setting, elements
from analysis.theory.theory import Copied, Theory
from results.model import Parameter, element_count

HOST_KINDS: dict[str, tuple[str, ...]] = {
    "none": (),
    "optimizer": ("master", "grads", "optimizer"),
    "params": ("params", "master", "grads", "optimizer"),
}
"""By offload, the kinds of state that are in host memory."""


def state(setting: Setting) -> dict[str, int] | None:
    """Bytes of model state by kind in device memory of the largest rank."""
    if setting.stage == 0:
        return _whole(setting)
    kept = _partitioned(setting) if setting.stage == 3 else _flat(setting)
    on_host = HOST_KINDS[setting.offload]
    return {kind: 0 if kind in on_host else size for kind, size in kept.items()}


def host(setting: Setting) -> dict[str, int] | None:
    """With offload, bytes of model state by kind in host memory of the rank that holds most (0.19.8).

    Stages 1 and 2 have two buffers in addition: one for the updated parameters in the dtype that they are copied in,
    one for the gradient of the largest parameter. With accumulation at stage 2, the gradients of whole parameters are
    there too. Stage 3 keeps gradients twice: in the dtype in which they add up, and in that of the update. None on an
    NVMe drive, and with bf16 master weights: no formula was checked.
    """
    if setting.offload == "none":
        return {}
    if not _is_checked(setting):
        return None
    widths = setting.widths
    master = widths.master or widths.param
    if setting.stage == 3:
        own = _cut(setting.trainable, setting.world_size)
        kept = _cut(setting.parameters, setting.world_size) if setting.offload == "params" else 0
        gradients, params = own * (master + widths.grad), kept * widths.param
    else:
        own = _shard(setting)
        largest = max(element_count(parameter.shape) for parameter in setting.trainable)
        accumulated = max(_reaching(setting)) if _accumulates_on_host(setting) else 0
        gradients, params = own * master + (largest + accumulated) * widths.grad, own * widths.param
    optimizer = _optimizer(setting, own, 1, setting.optimizer)
    return {"params": params, "master": own * master, "grads": gradients, "optimizer": optimizer}


def copied(setting: Setting) -> Copied | None:
    """With offload on a CPU, bytes copied per step: gradients, cast on the device, to the host, and updated parameters
    back. With accumulation at stage 2, each micro-batch saves gradients of whole parameters, and all but the first get
    the saved ones first. None on a GPU, where stage 3 makes copies that a CPU does not: no formula was checked.
    """
    if setting.offload == "none" or setting.device != "cpu" or not _is_checked(setting):
        return None
    widths = setting.widths
    master = widths.master or widths.param
    if setting.stage == 3:
        own = _cut(setting.trainable, setting.world_size)
        cast = own * widths.master
        return Copied(own * widths.grad + cast, 0 if setting.offload == "params" else own * widths.param)
    own = _shard(setting)
    saved = max(_reaching(setting)) * widths.grad if _accumulates_on_host(setting) else 0
    gradients = min(own, elements(setting.trainable)) * master
    return Copied(gradients + setting.accumulate * saved, own * widths.param + (setting.accumulate - 1) * saved)


def _is_checked(setting: Setting) -> bool:
    """Whether formulas for the host were held against a run."""
    return setting.options.get("offload_device") == "cpu" and setting.precision != "bf16"


def _accumulates_on_host(setting: Setting) -> bool:
    """Stage 1 reduces once, after the last micro-batch; stage 2 each of them."""
    return setting.stage == 2 and setting.accumulate > 1


def _whole(setting: Setting) -> dict[str, int]:
    widths, trained = setting.widths, elements(setting.trainable)
    return {
        "params": elements(setting.parameters) * widths.param,
        "master": trained * widths.master,
        "grads": trained * widths.grad,
        "optimizer": sum(
            _optimizer(setting, elements(chosen), len(chosen), rule)
            for rule, chosen in setting.by_optimizer(setting.trainable)
        ),
        "buffers": setting.buffer_bytes,
    }


def _flat(setting: Setting) -> dict[str, int]:
    widths, size, shard = setting.widths, setting.world_size, _shard(setting)
    frozen = elements(setting.parameters) - elements(setting.trainable)
    return {
        "params": (shard * size + frozen) * widths.param,
        "master": shard * (widths.master or widths.param),
        "grads": max(_reaching(setting)) * widths.grad,
        "optimizer": _optimizer(setting, shard, 1, setting.optimizer),
        "buffers": setting.buffer_bytes,
    }


def _reaching(setting: Setting) -> list[int]:
    """By rank, elements of the whole parameters that reach into its shard at stages 1 and 2."""
    shard = _shard(setting)
    sizes = [element_count(parameter.shape) for parameter in setting.trainable]
    ends = list(pairwise(accumulate(sizes, initial=0)))
    return [
        sum(end - start for start, end in ends if start < (rank + 1) * shard and end > rank * shard)
        for rank in (range(setting.world_size) if setting.rank is None else [setting.rank])
    ]


def _partitioned(setting: Setting) -> dict[str, int]:
    widths, size = setting.widths, setting.world_size
    kept, trained = _cut(setting.parameters, size), _cut(setting.trainable, size)
    return {
        "params": kept * widths.param,
        "master": trained * (widths.master or widths.param),
        "grads": trained * widths.grad,
        "optimizer": _optimizer(setting, trained, 1, setting.optimizer),
        "buffers": setting.buffer_bytes,
    }


def _optimizer(setting: Setting, updated: int, tensors: int, rule: Optimizer) -> int:
    counters = rule.counter_bytes if setting.options.get("kernel") == "torch" else 0
    return updated * rule.moments * setting.widths.moment + tensors * counters


def transient(setting: Setting) -> int:
    """Most bytes in addition to state and activations: a reduction bucket, allocated whole, twice where it overlaps.

    Stage 3 also gathers what it prefetches, at most all parameters.
    """
    configured = setting.described.get("configuration")
    zero = configured.get("zero_optimization", {}) if isinstance(configured, dict) else {}
    bucket = int(zero.get("reduce_bucket_size", 0)) if setting.stage else elements(setting.trainable)
    gathered = elements(setting.parameters) * setting.widths.param if setting.stage == 3 else 0
    cast = 2 * elements(setting.parameters) if setting.precision.startswith("amp_") else 0
    return bucket * setting.widths.grad * (2 if zero.get("overlap_comm") else 1) + gathered + cast


def sent(setting: Setting) -> float:
    """Bytes sent per rank and step with bandwidth-optimal collectives; f = (N-1)/N.

    Stages 0 to 2 all-reduce gradients, 2f·P·b_g, stage 2 those of each micro-batch; stages 1 and 2 all-gather what was
    trained, f·P·b_p, in shards padded together. Stage 3 is the paper's, which is the most: it gathers each parameter
    twice for each micro-batch, but for those that forward gathered last; there P counts the padding of each parameter
    to N equal parts. The checks for overflow, one element each, are left out.
    """
    size, widths = setting.world_size, setting.widths
    if setting.stage == 3:
        gathered, reduced = _cut(setting.parameters, size), _cut(setting.trainable, size)
        return setting.fraction * setting.accumulate * size * (2 * gathered * widths.param + reduced * widths.grad)
    gradients = elements(setting.trainable) * widths.grad
    updated = size * _shard(setting) * widths.param if setting.stage else 0
    return setting.fraction * (2 * gradients * (setting.accumulate if setting.stage == 2 else 1) + updated)


def _shard(setting: Setting) -> int:
    """Elements of a rank's shard at stages 1 and 2."""
    return ceil(elements(setting.trainable) / (2 * setting.world_size)) * 2


def _cut(parameters: list[Parameter], size: int) -> int:
    """Elements of a rank's part at stage 3, where each parameter is cut by itself."""
    return sum(ceil(element_count(parameter.shape) / size) for parameter in parameters)


THEORY = Theory(state=state, transient=transient, sent=sent, host=host, copied=copied, gradients_kept=(3,))
