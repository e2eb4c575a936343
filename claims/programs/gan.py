"""A small GAN as one module with one loss, which trains generator and discriminator against each other."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES, NOISE, WIDTH = 64, 16, 64


class Reversed(torch.autograd.Function):
    """Identity in forward; turns the sign of the gradient in backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class Gan(nn.Module):
    """The discriminator descends its loss; the generator, behind a reversed gradient, ascends it.

    A sample is its features and the noise next to them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(NOISE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, FEATURES))
        self.discriminator = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))

    def forward(self, samples: Tensor) -> Tensor:
        real, noise = samples.split([FEATURES, NOISE], dim=1)
        made: Tensor = Reversed.apply(self.generator(noise))
        score = self.discriminator(torch.cat([real, made]))
        target = torch.cat([torch.ones(len(real), 1), torch.zeros(len(made), 1)]).to(score)
        return F.binary_cross_entropy_with_logits(score, target)
