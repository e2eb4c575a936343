"""A stack of equal linear layers, the simplest model whose size is set by two numbers."""

from __future__ import annotations

from torch import nn

from workloads import data
from workloads.base import check_choice, check_count
from workloads.supervised import Regression


class MLP(Regression):
    """``depth`` linear layers of ``width`` to ``width`` with ReLU between them; mean squared error on vectors.

    ``depth=20 width=2000`` is the model of torch's ZeroRedundancyOptimizer recipe (80,040,000 parameters).
    """

    def __init__(self, *, seed: int, data_dir: str | None, depth: int = 4, width: int = 256, bias: bool = True) -> None:
        check_count("mlp", "depth", depth)
        check_count("mlp", "width", width)
        check_choice("mlp", "bias", bias, (True, False))
        data.reject_data_dir("mlp", data_dir)
        self._depth = depth
        self._width = width
        self._bias = bias
        super().__init__("mlp", seed, data.vectors(seed, width=width))

    def network(self) -> nn.Module:
        return network(self._depth, self._width, self._bias)

    def units(self, module: nn.Module) -> list[nn.Module]:
        return [child for child in module.children() if isinstance(child, nn.Linear)]


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
