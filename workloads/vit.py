"""torchvision's vision transformers on CIFAR-10 and ImageNet shapes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads import files
from workloads.base import check_choice
from workloads.supervised import Supervised

SIZES = ("b_16", "tiny")


class ViT(Supervised):
    """ViT-B/16 on ImageNet's shape (``size`` b_16, 86,567,656 parameters) or 2 layers of 64 on CIFAR-10's (tiny).

    Real images from ``data_dir`` where that is set, else fixed synthetic ones. Cross-entropy; no dropout.
    """

    def __init__(self, *, seed: int, data_dir: str | None, size: str = "b_16") -> None:
        check_choice("vit", "size", size, SIZES)
        self._size = size
        source = files.imagenet(seed, data_dir) if size == "b_16" else files.cifar10(seed, data_dir)
        super().__init__(f"vit_{size}", seed, source)

    def network(self) -> nn.Module:
        return network(self._size)

    def units(self, module: nn.Module) -> list[nn.Module]:
        """The blocks and the classifier; patches, positions and the last norm are left to the root."""
        return [*module.get_submodule("encoder.layers").children(), module.get_submodule("heads")]


def network(size: str) -> nn.Module:
    """Maps images (n, 3, height, width) to logits (n, classes)."""
    from torchvision import models

    module: nn.Module
    if size == "b_16":
        module = models.vit_b_16(weights=None)
    else:
        module = models.VisionTransformer(
            image_size=32, patch_size=4, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=256, num_classes=10
        )
    # torchvision's head starts at zero, through which the first step's gradient reaches no other layer.
    nn.init.normal_(module.get_parameter("heads.head.weight"), std=0.02)
    for block in module.get_submodule("encoder.layers").children():
        block.self_attention = PatchAttention(block.self_attention)  # type: ignore[arg-type]
    return module


class PatchAttention(nn.Module):
    """The parameters of torch's self-attention, with a gradient of exactly zero for the bias of its keys.

    Softmax cancels that bias: in torch's own attention its gradient is rounding noise, which Adam would turn into
    updates of full size.
    """

    def __init__(self, theirs: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = theirs.num_heads
        self.in_proj_weight = theirs.in_proj_weight
        self.in_proj_bias = theirs.in_proj_bias
        self.out_proj = theirs.out_proj

    def forward(self, stream: Tensor, *_: Tensor, need_weights: bool = False) -> tuple[Tensor, None]:
        """Self-attention over (n, length, width); the other arguments are those that torchvision passes."""
        samples, length, width = stream.shape
        query_bias, key_bias, value_bias = self.in_proj_bias.chunk(3)
        bias = torch.cat((query_bias, key_bias.detach(), value_bias))
        joint = F.linear(stream, self.in_proj_weight, bias).view(samples, length, 3, self.heads, width // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(mixed.transpose(1, 2).reshape(samples, length, width)), None
