"""``optimizer=muon``: which weights Muon updates, and one optimizer of both it and AdamW, by torch's own.

Muon orthogonalizes the update of a whole matrix. Its authors update the matrices of hidden layers with it, and all
other weights with AdamW. The rule here, of every engine and of the single process that parity compares with:

    Muon    trained weights with two dimensions
    AdamW   all others, and of the former those of ``nn.Embedding`` and ``nn.EmbeddingBag``, and of the output layer:
            the last module, in the order of registration, that has a weight with two dimensions

One learning rate applies to both: Muon's step is scaled to the size of AdamW's, 0.2·sqrt(max(rows, columns)).

Sources: Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024), for the rule; Liu et al., Muon
is Scalable for LLM Training (arXiv:2502.16982), section 2.2, for the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import _muon

from results.resolved import EngineDescription
from results.training_settings import Training

RULE = "Muon for matrices of hidden layers; AdamW for embeddings, the output layer and weights of other dimensions"
SCALE = "match_rms_adamw"
"""torch's name of the scale that makes one learning rate fit both."""


def hidden_matrices(module: nn.Module) -> set[int]:
    """Ids of the parameters of ``module`` that Muon updates, if they are trained."""
    layers = [part for part in module.modules() if any(map(is_matrix, part.parameters(recurse=False)))]
    others = [part for part in layers if isinstance(part, nn.Embedding | nn.EmbeddingBag)] + layers[-1:]
    excluded = {id(weight) for part in others for weight in part.parameters(recurse=False)}
    return {id(weight) for weight in module.parameters() if is_matrix(weight)} - excluded


def is_matrix(weight: Tensor) -> bool:
    """Whether Newton-Schulz iterations are defined for it: real numbers in two dimensions."""
    return weight.dim() == 2 and weight.numel() > 0 and weight.is_floating_point()


def describe_muon(spec: Training, whole: str) -> EngineDescription:
    """The entry of ``describe`` about Muon; none with another optimizer. ``whole``: where matrices are whole."""
    return {"muon": f"{RULE}; {whole}"} if spec.optimizer == "muon" else {}


class MuonAndAdamW(torch.optim.Optimizer):
    """``torch.optim.Muon`` for the parameter groups with ``matrices=True``, ``torch.optim.AdamW`` for the others.

    One optimizer, because that is what wrappers take (``ZeroRedundancyOptimizer``, ``GradScaler``).
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, **adamw: Any) -> None:
        """``adamw`` selects AdamW's implementation (``fused``, ``foreach``)."""
        super().__init__(groups, {"lr": lr})
        self._parts = [
            (matrices, create([{"params": []}], lr=lr, **more))
            for matrices, create, more in ((True, torch.optim.Muon, {}), (False, torch.optim.AdamW, adamw))
        ]
        for matrices, part in self._parts:
            for group in self._groups(matrices):
                for name, value in part.defaults.items():
                    group.setdefault(name, value)

    def _groups(self, matrices: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["matrices"] is matrices and group["params"]]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates all weights that have a gradient."""
        loss = closure() if closure else None
        for matrices, part in self._parts:
            part.state, part.param_groups = self.state, self._groups(matrices)  # which wrappers of this one replace
            part.step()  # type: ignore[no-untyped-call]
        return loss


def matrix_hyperparameters(spec: Training) -> dict[str, Any]:
    """Muon's, besides the learning rate; what is not set is torch's own."""
    given = {"momentum": spec.momentum, "weight_decay": spec.weight_decay}
    return {name: value for name, value in given.items() if value is not None} | {"adjust_lr_fn": SCALE}


def orthogonalized(matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """The direction of Muon's update, in bf16. ``matrix`` is averaged gradients, in bf16; its values are lost.

    Private API of torch: its optimizer computes this only together with an update of the whole matrix.
    """
    direction: Tensor = _muon._zeropower_via_newtonschulz(
        matrix, group["ns_coefficients"], group["ns_steps"], group["eps"]
    )
    return direction


def scaled_rate(group: dict[str, Any], shape: torch.Size) -> float:
    """Returns the factor of the direction for a matrix of this shape. Private API of torch."""
    rate: float = _muon._adjust_lr(group["lr"], group["adjust_lr_fn"], shape)
    return rate
