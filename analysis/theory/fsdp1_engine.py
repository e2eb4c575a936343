"""Engine ``fsdp1``: what FullyShardedDataParallel keeps and sends.

Each sharding unit, and what is left at the root, is flattened: each parameter begins at a multiple of 16 bytes, and
the whole is padded to N equal parts. Stage 2 is SHARD_GRAD_OP, 3 is FULL_SHARD. Bytes are exact for tensors of the rank
that holds most. State is taken between backward and update, gradients alive.

Source: torch/distributed/fsdp/_flat_param.py, ``FlatParamHandle._init_flat_param_and_metadata``.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.theory.setting import Setting, elements
from analysis.theory.theory import Theory
from results.model import Parameter, element_count

ALIGNMENT_BYTES = 16
ROOT = -1


@dataclass(frozen=True)
class Flat:
    """A flattened unit: elements by parameter, and where each begins."""

    unit: int
    parameters: list[Parameter]
    starts: list[int]
    elements: int
    """With all padding, so that it divides into equal parts."""

    @property
    def trained(self) -> bool:
        """One trained parameter makes a gradient of the whole."""
        return any(parameter.requires_grad for parameter in self.parameters)


def flattened(setting: Setting) -> list[Flat]:
    """The units as they are flattened, in the order of their first parameters."""
    units: dict[int, list[Parameter]] = {}
    for parameter in setting.parameters:
        units.setdefault(parameter.unit, []).append(parameter)
    multiple = ALIGNMENT_BYTES // setting.widths.param
    flats = []
    for unit, members in units.items():
        starts, total = [], 0
        for parameter in members:
            starts.append(total + -total % multiple)
            total = starts[-1] + element_count(parameter.shape)
        flats.append(Flat(unit, members, starts, total + -total % setting.shards))
    return flats


def state(setting: Setting) -> dict[str, int] | None:
    """Bytes of model state by kind of the largest rank; None for a stage that the engine lacks."""
    if setting.stage < 2:
        return None
    widths, flats = setting.widths, flattened(setting)
    kept = sum(flat.elements for flat in flats) // setting.shards
    reduced = sum(flat.elements for flat in flats if flat.trained) // setting.shards
    own_width = widths.master or widths.param
    ranks = range(setting.shards) if setting.rank is None else [setting.rank]
    return {
        "params": 0 if widths.master else kept * own_width,
        "master": kept * widths.master,
        "grads": reduced * own_width,
        "optimizer": max(_optimizer(setting, flats, rank) for rank in ranks),
        "buffers": setting.buffer_bytes,
    }


def _optimizer(setting: Setting, flats: list[Flat], rank: int) -> int:
    """State of the trained elements in a rank's parts, without their padding, and a counter per parameter in them."""
    rule, total = setting.optimizer, 0
    for flat in flats:
        part = flat.elements // setting.shards
        for start, parameter in zip(flat.starts, flat.parameters, strict=True):
            end = start + element_count(parameter.shape)
            own = min(end, (rank + 1) * part) - max(start, rank * part)
            if parameter.requires_grad and own > 0:
                total += rule.moments * own * setting.widths.moment + rule.counter_bytes
    return total


def transient(setting: Setting) -> int:
    """Most bytes in addition to state and activations, the optimizer's own temporaries left out.

    Stage 2 gathers all parameters, and so may stage 3 on a GPU without a limit of all-gathers. Otherwise stage 3
    gathers the root, the current unit and the prefetched one. Autograd makes each gradient of a unit and then the
    flattened one; its reduction has a result and a buffer of the same size. ``forward_prefetch`` delays reductions, so
    one unit more stays gathered, with its gradient. With accumulation, all gradients stay whole until the last
    micro-batch. Autocast's 2-byte copies of the weights come on top.
    """
    flats = {flat.unit: flat.elements for flat in flattened(setting)}
    largest, whole = max(flats.values(), default=0), sum(flats.values())
    late = 1 if setting.options.get("forward_prefetch") else 0
    ahead = late + (1 if setting.options.get("backward_prefetch") == "none" else 2)
    unlimited = setting.device == "cuda" and setting.options.get("limit_all_gathers") is False
    gathered = whole if setting.stage == 2 or unlimited else min(whole, ahead * largest + flats.get(ROOT, 0))
    unreduced = whole + largest if setting.accumulate > 1 else (2 + late) * largest
    cast = 2 * elements(setting.parameters) if setting.precision.startswith("amp_") else 0
    reduced = largest // setting.shards * (setting.widths.master or setting.widths.param)
    return gathered * setting.widths.param + unreduced * setting.widths.grad + reduced + cast


def sent(setting: Setting) -> float:
    """Bytes sent per rank and step (mean over ranks) with bandwidth-optimal collectives.

    Stage 2 all-gathers once per step, also with accumulation. Stage 3 all-gathers in each micro-batch's forward and,
    but for the root, in its backward. Gradients are reduce-scattered once; with hybrid sharding the copies all-reduce
    their parts. f = (S-1)/S with S ranks that share a copy:

        stage 2  f·P·b_p + f·G·b_g
        stage 3  k·f·(2P - P_root)·b_p + f·G·b_g

    P, P_root: elements of all units and of the root; G: those of units that train; k: micro-batches. Padding counts.
    """
    flats = flattened(setting)
    whole = sum(flat.elements for flat in flats)
    root = sum(flat.elements for flat in flats if flat.unit == ROOT)
    gradients = sum(flat.elements for flat in flats if flat.trained)
    gathers = whole if setting.stage == 2 else setting.accumulate * (2 * whole - root)
    within = (setting.shards - 1) / setting.shards
    replicas = setting.world_size / setting.shards
    between = 2 * (replicas - 1) / replicas * gradients / setting.shards
    return within * gathers * setting.widths.param + (within * gradients + between) * setting.widths.grad


THEORY = Theory(state=state, transient=transient, sent=sent, gradients_kept=(2, 3), handover=(2, 3))
