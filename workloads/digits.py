"""A small convolutional network on scikit-learn's handwritten digits: real data, made for CPUs."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from workloads import data
from workloads.base import check_count
from workloads.supervised import Supervised


class Digits(Supervised):
    """``depth`` convolutions of ``width`` channels at 8x8, max-pooling to 4x4, and two linear layers; cross-entropy.

    Neither batch norm nor dropout, so that a step does not depend on how the global batch is cut. The default has
    567,498 parameters; forward and backward of 32 samples take 7 ms on one CPU thread. The data is always real
    and comes with scikit-learn, so ``data_dir`` is rejected.
    """

    def __init__(self, *, seed: int, data_dir: str | None, width: int = 64, depth: int = 2) -> None:
        check_count("digits", "width", width)
        check_count("digits", "depth", depth)
        data.reject_data_dir("digits", data_dir)
        self._width = width
        self._depth = depth
        super().__init__("digits", seed, data.digits(seed))

    def network(self) -> nn.Module:
        return network(self._width, self._depth)


def network(width: int, depth: int) -> nn.Module:
    """Maps images (n, 1, 8, 8) to logits (n, 10); its children are its sharding units."""
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for block in range(depth):
        convolution = nn.Conv2d(width if block else 1, width, kernel_size=3, padding=1)
        blocks[f"conv{block + 1}"] = nn.Sequential(convolution, nn.ReLU())
    blocks["hidden"] = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * width, 8 * width), nn.ReLU())
    blocks["output"] = nn.Linear(8 * width, 10)
    return nn.Sequential(blocks)
