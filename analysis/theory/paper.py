"""The ZeRO paper's own formulas (Rajbhandari et al., SC 2020): what a perfect partition keeps and sends.

Real engines deviate: they partition whole parameters, pad, keep buckets, or move more than is optimal.
Reports show the paper's numbers next to an engine's prediction.
"""

from __future__ import annotations


def paper_state(count: int, stage: int, world_size: int, *, param: float, grad: float, optimizer: float) -> float:
    """Bytes of model state per rank (section 5, figure 1), ``optimizer`` including master weights.

    ``param``, ``grad`` and ``optimizer`` are bytes per parameter: 2, 2 and 12 for the paper's mixed-precision
    Adam, which gives 16Ψ, 4Ψ + 12Ψ/N, 2Ψ + 14Ψ/N and 16Ψ/N.
    """
    kept = [
        param if stage < 3 else param / world_size,
        grad if stage < 2 else grad / world_size,
        optimizer if stage < 1 else optimizer / world_size,
    ]
    return count * sum(kept)


def paper_sent(count: int, stage: int, world_size: int, *, param: float, grad: float) -> float:
    """Bytes sent per rank and step (section 7), with f = (N-1)/N, which the paper takes as 1.

    Stage 0 all-reduces gradients: 2f·Ψ·b_g. Stages 1 and 2 reduce-scatter gradients and all-gather
    parameters: f·Ψ·(b_g + b_p). Stage 3 gathers parameters twice and reduce-scatters: f·Ψ·(2b_p + b_g).
    """
    per_parameter = (2 * grad, grad + param, grad + param, 2 * param + grad)[stage]
    return (world_size - 1) / world_size * count * per_parameter
