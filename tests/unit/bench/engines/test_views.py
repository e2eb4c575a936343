"""Parameters as views of a flat tensor."""

from __future__ import annotations

import pytest
import torch

from bench.engines.views import dense_strides, flat, view_like

CHANNELS_LAST = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("tensor", [torch.randn(3, 5), torch.randn(5, 3).t(), CHANNELS_LAST, torch.zeros(2, 0)])
def test_a_dense_tensor_keeps_its_strides_in_a_flat_one(tensor: torch.Tensor) -> None:
    place = view_like(torch.zeros(20 + tensor.numel())[20:], tensor)
    place.copy_(tensor)
    assert place.stride() == tensor.stride() and torch.equal(place, tensor)
    assert flat(tensor).data_ptr() == tensor.data_ptr() and torch.equal(flat(place), flat(tensor))


@pytest.mark.parametrize("tensor", [torch.randn(3, 1).expand(3, 5), torch.randn(5, 6)[:, ::2]])
def test_a_tensor_with_gaps_or_shared_elements_becomes_dense(tensor: torch.Tensor) -> None:
    assert view_like(flat(tensor), tensor).stride() == dense_strides(tensor)
    assert torch.equal(view_like(flat(tensor), tensor), tensor)
