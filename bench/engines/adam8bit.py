"""``optimizer=adam8bit``: torchao's Adam with moments of 8 bits, without a compilation for each parameter.

    moment of at least 4,096 elements, a multiple of 256   a byte for each element, an fp32 scale for each 256
    any other                                              the dtype of the weight

torchao has ``torch.compile`` fuse the update of each parameter. That takes minutes on a CPU, so here the same function
runs eagerly. Its temporaries are then larger than the moments. An engine with flat shards updates them in parts
(``parts``).

Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization (ICLR 2022), section 2.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

NAME = "adam8bit"
BLOCK = 256
"""Elements with one scale, torchao's default."""
PART = 2**16
"""Elements of a flat shard that are updated together."""


def parts(count: int) -> list[int]:
    """Sizes of the parts in which a flat shard of ``count`` elements is updated: whole blocks first, then the rest."""
    whole = count // BLOCK * BLOCK
    sizes = [min(PART, whole - start) for start in range(0, whole, PART)]
    return [*sizes, *([count - whole] if count > whole else [])]


def create(parameters: Any, lr: float, **hyperparameters: Any) -> torch.optim.Optimizer:
    """The optimizer; other implementations (``fused``, ``foreach``) do not exist."""
    own = {name: value for name, value in hyperparameters.items() if name not in ("fused", "foreach")}
    optimizer: torch.optim.Optimizer = _eager_class()(parameters, lr=lr, **own)
    return optimizer


@cache
def _eager_class() -> Any:
    from torchao.optim import Adam8bit

    class EagerAdam8bit(Adam8bit):  # type: ignore[misc]
        """torchao's, run as it is written."""

        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:  # wrappers and schedules set numbers, of which torchao takes none
                if not isinstance(group["lr"], Tensor):
                    group["lr"] = torch.tensor(group["lr"], dtype=torch.float32)
            with torch.compiler.set_stance("force_eager"):
                return super().step(closure)

    return EagerAdam8bit
