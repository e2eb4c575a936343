"""torchvision's ResNets on CIFAR-10 and ImageNet shapes."""

from __future__ import annotations

from torch import nn

from workloads import files
from workloads.base import check_choice
from workloads.supervised import Supervised

DEPTHS = (18, 50)
CLASSES = {"cifar10": 10, "imagenet": 1000}


class ResNet(Supervised):
    """ResNet of ``depth`` 18 or 50 on ``data`` cifar10 (3x32x32, 10 classes) or imagenet (3x224x224, 1000 classes).

    For cifar10 the stem is a 3x3 convolution of stride 1 without max-pooling, as is customary for small images.
    Batch norm sees one rank's micro-batch at a time, so losses depend on how the global batch is cut.
    Real images from ``data_dir`` where that is set, else fixed synthetic ones.
    """

    def __init__(self, *, seed: int, data_dir: str | None, depth: int = 18, data: str = "cifar10") -> None:
        check_choice("resnet", "depth", depth, DEPTHS)
        check_choice("resnet", "data", data, list(CLASSES))
        self._depth = depth
        self._data = data
        source = files.cifar10(seed, data_dir) if data == "cifar10" else files.imagenet(seed, data_dir)
        super().__init__(f"resnet{depth}", seed, source)

    def network(self) -> nn.Module:
        return network(self._depth, self._data)

    def units(self, module: nn.Module) -> list[nn.Module]:
        """The residual blocks and the classifier; the stem is left to the root."""
        stages = [module.get_submodule(f"layer{stage}") for stage in range(1, 5)]
        return [block for stage in stages for block in stage.children()] + [module.get_submodule("fc")]


def network(depth: int, data: str) -> nn.Module:
    """Maps images (n, 3, height, width) to logits (n, classes)."""
    from torchvision import models

    make = {18: models.resnet18, 50: models.resnet50}[depth]
    module: nn.Module = make(weights=None, num_classes=CLASSES[data])
    if data == "cifar10":
        stem = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        module.conv1 = stem
        module.maxpool = nn.Identity()
    return module
