"""What a rank keeps, of a module and an optimizer whose tensors are listed by hand."""

from __future__ import annotations

import torch

from bench.engines.kept_state import kept_state


def test_weights_gradients_moments_and_buffers_are_kept_by_kind() -> None:
    trained, frozen = torch.ones(3, requires_grad=True), torch.ones(2)
    optimizer = torch.optim.Adam([trained], lr=0.1)
    assert kept_state([trained, frozen], optimizer, [])["optimizer"] == []
    trained.sum().backward()
    optimizer.step()
    buffer = torch.zeros(1)
    kept = kept_state([trained, frozen], optimizer, iter([buffer]), master=True)
    state = optimizer.state[trained]
    expected = {
        "master": [trained, frozen],
        "grads": [trained.grad],
        "optimizer": [state["step"], state["exp_avg"], state["exp_avg_sq"]],
        "buffers": [buffer],
    }
    assert {kind: [id(one) for one in tensors] for kind, tensors in kept.items()} == {
        kind: [id(one) for one in tensors] for kind, tensors in expected.items()
    }
