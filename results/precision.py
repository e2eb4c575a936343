"""Precisions: the dtypes of weights, computation and optimizer state, as torch names them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """One value of the setting ``precision``."""

    weights: str
    """dtype of weights and gradients, as forward and backward see them."""
    compute: str
    """dtype of matrix products: that of the weights, or autocast's."""
    master: bool = False
    """Whether the optimizer keeps fp32 master weights, and its state in fp32."""
    loss_scaling: bool = False
    """Whether the loss is scaled dynamically, and an update skipped whose gradients are not finite."""

    @property
    def autocast(self) -> bool:
        return self.compute != self.weights

    @property
    def optimizer_state(self) -> str:
        """dtype of the optimizer's moments."""
        return "float32" if self.master else self.weights


PRECISIONS = {
    "fp32": Precision("float32", "float32"),
    "amp_bf16": Precision("float32", "bfloat16"),
    "amp_fp16": Precision("float32", "float16", loss_scaling=True),
    "bf16": Precision("bfloat16", "bfloat16"),
    "bf16_master": Precision("bfloat16", "bfloat16", master=True),
}
ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes per element by dtype."""
