"""Parity: training must compute what one process computes on the same global batches (``bench.worker.single_process``).

Errors are measured here, tensor by tensor; how they are judged: ``results.parity``.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from bench.engines.precision import weight_dtype
from bench.worker.single_process import Reference, Weights
from results.parity import Parity, RankDifference

TOLERANCE = {"fp32": 1e-3, "amp_bf16": 0.03, "amp_fp16": 0.03, "bf16": 0.15, "bf16_master": 0.15}
"""Largest parity error by precision (docs/explanation/parity.md; tests hold wrong engines to them)."""

ONE_SIDED = 0.15
"""The least tolerance where the engine rounds to 16 bits what a single process does not: gradients on the wire
(compression=bf16, fp16), or partial results of a layer before they are added up."""


def tolerance(precision: str, compression: str = "none", *, partial_sums: bool = False) -> float:
    """Largest parity error of a right engine, before the model's own noise is measured."""
    one_sided = compression in ("bf16", "fp16") or (partial_sums and precision != "fp32")
    return max(TOLERANCE[precision], ONE_SIDED if one_sided else 0.0)


def compare(
    reference: Reference,
    losses: list[float],
    weights: Weights,
    precision: str,
    limit: float | None = None,
    *,
    first: dict[str, float] | None = None,
) -> Parity:
    """Parity of a run with these global losses and final weights (docs/explanation/parity.md).

    ``limit`` is the tolerance; None: that of the precision. ``first`` are the errors, by tensor, after the first step.
    Raises KeyError if a parameter of the reference is missing from ``weights``.
    """
    dtype = weight_dtype(precision)
    last = tensor_errors(weights, reference.final, reference.initial, dtype)
    early = last if first is None else first
    return Parity(
        steps=len(losses),
        loss_error=loss_error(losses, reference.losses),
        weights_error=weights_error(reference, weights, dtype),
        tolerance=tolerance(precision) if limit is None else limit,
        losses=losses,
        reference_losses=reference.losses,
        tensor_errors={name: [_short(early[name]), _short(error)] for name, error in last.items()},
        reference_fault=reference.fault(),
    ).judged()


def with_rank_difference(
    parity: Parity, reference: Reference, apart: dict[int, dict[str, float]], dtype: torch.dtype
) -> Parity:
    """``parity`` with the tensor and rank that are furthest from rank 0, of distances by rank and tensor."""
    eps = torch.finfo(dtype).eps

    def share(name: str, distance: float) -> float:
        final = reference.final[name].double()
        scale = float((final - reference.initial[name].double()).norm() + eps / 4 * final.norm())
        return distance / scale if scale else float("inf")

    differences = [
        RankDifference(rank, name, _short(share(name, distance)))
        for rank, by_name in apart.items()
        for name, distance in by_name.items()
        if name in reference.final and distance != 0  # NaN is a difference
    ]
    worst = max(differences, key=lambda entry: _ranked(entry.error), default=None)
    return replace(parity, ranks_differ=worst).judged()


def _ranked(error: float) -> float:
    return math.inf if math.isnan(error) else error


def loss_error(losses: list[float], expected: list[float]) -> float:
    """The largest relative error of a step's global loss."""
    right = torch.tensor(expected, dtype=torch.float64)
    errors = (torch.tensor(losses, dtype=torch.float64) - right).abs() / right.abs().clamp(min=1e-12)
    return float(errors.max())  # NaN if any step's is, which Python's max() may pass over


def weights_error(reference: Reference, weights: Weights, dtype: torch.dtype) -> float:
    """|θ - θ_ref| / (|θ_ref - θ_0| + eps/4·|θ_ref|) over all parameters: the error as a share of what training moved.

    An error relative to the weights themselves would hide a wrong gradient behind a small learning rate. The
    second term is the rounding of weights in ``dtype`` (root mean square of a uniform error of half a unit in the
    last place: 0.2 to 0.3 eps), below which no two runs can agree. A reference that did not move proves nothing:
    infinite.
    """
    complete(weights, reference.final)
    off = path = size = 0.0
    for name, expected in reference.final.items():
        final = expected.double()
        off += float((weights[name].detach().cpu().double() - final).square().sum())
        path += float((final - reference.initial[name].double()).square().sum())
        size += float(final.square().sum())
    if path == 0:
        return float("inf")
    return float(off**0.5 / (path**0.5 + torch.finfo(dtype).eps / 4 * size**0.5))


def tensor_errors(weights: Weights, expected: Weights, initial: Weights, dtype: torch.dtype) -> dict[str, float]:
    """For each tensor |θ - θ_ref| beyond one unit in the last place of its largest element, as a share of
    |θ_ref - θ_0| + eps/4·|θ_ref|.

    One element that is rounded the other way is a unit off, which in a small tensor would be most of it.
    """
    complete(weights, expected)
    return {
        name: tensor_error(weights[name].detach().cpu().double() - right.double(), right, initial[name], dtype)
        for name, right in expected.items()
    }


def tensor_error(off: Tensor, expected: Tensor, initial: Tensor, dtype: torch.dtype) -> float:
    if not off.numel():
        return 0.0
    right, eps = expected.double(), torch.finfo(dtype).eps
    beyond = off.norm() - eps * right.abs().max()
    scale = (right - initial.double()).norm() + eps / 4 * right.norm()
    if beyond <= 0:  # False for NaN
        return 0.0
    return float(beyond / scale) if scale else float("inf")


def complete(weights: Weights, expected: Weights) -> None:
    """Raises KeyError, with the name, if ``weights`` lack one."""
    missing = sorted(set(expected) - set(weights))
    if missing:
        raise KeyError(f"full_state_dict() lacks {missing[0]}")


def _short(error: float) -> float:
    return float(f"{error:.3g}")
