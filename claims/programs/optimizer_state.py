"""What torch's optimizers keep for each element of a parameter."""

from __future__ import annotations

import torch
from torch import nn


def bytes_per_element(rank: int, ranks: int, width: int, layers: int) -> dict[str, float]:
    """Bytes of state per element of square weight matrices after one step, by optimizer."""
    del rank, ranks
    kept = {}
    for create in (torch.optim.AdamW, torch.optim.Muon):
        torch.manual_seed(0)
        module = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
        optimizer = create(module.parameters(), lr=1e-3)
        module(torch.randn(4, width)).square().mean().backward()
        optimizer.step()
        tensors = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        kept[create.__name__] = size / sum(parameter.numel() for parameter in module.parameters())
    return kept
