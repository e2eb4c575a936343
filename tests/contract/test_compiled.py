"""``compile=true`` compiles: graphs are made of DDP's module, and of every unit of fully_shard and of native."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._functorch import config as functorch

from bench.engines.base import Engine, RankContext
from bench.engines.native import adapter as native
from bench.engines.spec import EngineSpec
from bench.engines.torch import adapter


class Block(nn.Module):
    """A unit of a user's own class."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.inner(inputs))


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    torch.compiler.reset()
    counters.clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=False), functorch.patch(activation_memory_budget=1.0):
        yield
    torch.compiler.reset()
    dist.destroy_process_group()


@pytest.mark.parametrize(("create", "stage"), [(adapter.create, 0), (adapter.create, 3), (native.create, 3)])
@pytest.mark.usefixtures("one_rank")
def test_what_is_asked_to_be_compiled_is(create: Callable[[], Engine], stage: int) -> None:
    units: list[nn.Module] = [nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), Block()]
    options = {"gradient_as_bucket_view": True, "static_graph": False, "find_unused_parameters": False}
    budget = 0.0 if create is native.create else None
    spec = EngineSpec(
        stage=stage,
        world_size=1,
        device="cpu",
        backend="gloo",
        compile=True,
        checkpointing_budget=budget,
        options=options,
    )
    engine = create()
    engine.setup(nn.Sequential(*units), units, spec, RankContext(0, 1, torch.device("cpu"), dist.HashStore()))
    engine.forward_backward((torch.randn(4, 8),), lambda module, batch: module(batch[0]).sum(), sync=True)
    engine.optimizer_step()
    assert functorch.activation_memory_budget == (1.0 if budget is None else budget)
    assert counters["stats"]["unique_graphs"] >= (3 if stage == 3 else 1)
    assert counters["stats"]["calls_captured"] >= 5  # three products, tanh, relu
