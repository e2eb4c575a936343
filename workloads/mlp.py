"""A stack of equal linear layers, the simplest model whose size is set by two numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from workloads import data
from workloads.base import Batch, WorkloadInfo, check_choice, check_count, reseeded


class MLP:
    """``depth`` linear layers of ``width`` to ``width`` with ReLU between them; mean squared error on vectors.

    ``depth=20 width=2000`` is the model of torch's ZeroRedundancyOptimizer recipe (80,040,000 parameters).
    """

    def __init__(self, *, seed: int, data_dir: str | None, depth: int = 4, width: int = 256, bias: bool = True) -> None:
        check_count("mlp", "depth", depth)
        check_count("mlp", "width", width)
        check_choice("mlp", "bias", bias, (True, False))
        data.refuse_data_dir("mlp", data_dir)
        self._seed = seed
        self._depth = depth
        self._width = width
        self._bias = bias
        self._source = data.vectors(seed, width=width)
        self.info = WorkloadInfo("mlp", unit="sample", units_per_sample=1, data=self._source.info)

    def build(self) -> nn.Module:
        with reseeded(self._seed):
            return network(self._depth, self._width, self._bias)

    def units(self, module: nn.Module) -> list[nn.Module]:
        return [child for child in module.children() if isinstance(child, nn.Linear)]

    def batch(self, indices: Sequence[int]) -> Batch:
        return self._source.batch(indices)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return F.mse_loss(module(inputs).float(), targets.float())


def network(depth: int, width: int, bias: bool) -> nn.Module:
    """Maps vectors (n, width) to vectors (n, width)."""
    layers: list[nn.Module] = []
    for layer in range(depth):
        linear = nn.Linear(width, width, bias=bias)
        # torch's default shrinks gradients by 2.4 per layer: after 20 of them Adam would follow rounding noise.
        nn.init.kaiming_normal_(linear.weight, nonlinearity="linear" if layer == depth - 1 else "relu")
        layers += [linear, nn.ReLU()]
    module = nn.Sequential(*layers[:-1])
    module.tp_plan = tp_plan(depth)  # type: ignore[assignment]
    return module


def tp_plan(depth: int) -> dict[str, str]:
    """Layers in pairs: the first sliced by outputs, the second by inputs. A last one without a partner stays whole."""
    return {str(2 * layer): ("colwise", "rowwise")[layer % 2] for layer in range(depth - depth % 2)}
