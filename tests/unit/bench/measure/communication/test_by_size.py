"""What ranks check of the collectives that they time: a result that is wrong anywhere is seen."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from bench.measure.communication.by_size import is_right
from bench.measure.communication.sizes import KINDS

RIGHT = {
    "all_reduce": [10.0] * 8,
    "reduce_scatter": [10.0] * 2,
    "all_gather": [1.0, 1, 2, 2, 3, 3, 4, 4],
    "broadcast": [1.0] * 8,
    "all_to_all": [1.0, 1, 2, 2, 3, 3, 4, 4],
}
"""Of four ranks, each of which sends its number plus one."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_one_wrong_element_is_seen(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    received = torch.tensor(RIGHT[kind], dtype=dtype)
    assert is_right(kind, received)
    for wrong in (0.0, float("nan"), 5.0):
        changed = received.clone()
        changed[-1] = wrong
        assert not is_right(kind, changed)
