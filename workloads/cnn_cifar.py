"""The tutorials' two-convolution network on CIFAR-10."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from workloads import files
from workloads.supervised import Supervised


class CnnCifar(Supervised):
    """Two convolutions with max-pooling and two linear layers, 2,175,626 parameters; cross-entropy on the logits.

    CIFAR-10 in ``data_dir`` where that is set, else fixed synthetic images of its shape.
    """

    def __init__(self, *, seed: int, data_dir: str | None) -> None:
        super().__init__("cnn_cifar", seed, files.cifar10(seed, data_dir))

    def network(self) -> nn.Module:
        return network()


def network() -> nn.Module:
    """Maps images (n, 3, 32, 32) to logits (n, 10); its children are its sharding units."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            conv2=nn.Sequential(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            hidden=nn.Sequential(nn.Flatten(), nn.Linear(128 * 8 * 8, 256), nn.ReLU()),
            output=nn.Linear(256, 10),
        )
    )
