"""The native engine's use of CUDA streams has no race: what NCCL reads and writes is ordered with what is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from bench.engines.base import RankContext
from bench.engines.native import adapter
from bench.engines.native.collectives import InFlight, NcclCollectives
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.worker import fake_group
from tests.streams import Races, Stream, simulate

RANKS = 4
Settings = dict[str, Any]


class Forgotten:
    """A collective in flight without a wait."""

    def wait(self) -> None:
        pass


class UsedTooEarly(NcclCollectives):
    """No wait for the result of a collective."""

    def _enqueue(self, collective: Any) -> InFlight:
        super()._enqueue(collective)
        return Forgotten()


class Deaf(Stream):
    def wait_stream(self, other: Stream) -> None:
        pass


class SentTooEarly(NcclCollectives):
    """A collective does not wait for what it sends."""

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self._stream: Any = Deaf()


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Trains rank 0 of a world of fake ranks for three steps on simulated streams; returns the races."""
    simulate(monkeypatch)
    try:
        fake_group.join_group(0, RANKS)
    except EngineUnsupported as error:
        pytest.skip(str(error))

    def train(collectives: type[NcclCollectives] = NcclCollectives, **settings: Any) -> list[str]:
        monkeypatch.setattr(adapter, "collectives", lambda context, backend: collectives(context))
        torch.manual_seed(0)
        blocks = [nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)) for _ in range(4)]
        module = nn.Sequential(nn.Linear(8, 16), *blocks, nn.Linear(16, 4))
        spec = EngineSpec(world_size=RANKS, device="cpu", backend="nccl", **settings)
        context = RankContext(0, RANKS, torch.device("cpu"), dist.HashStore())
        with Races() as races:
            engine = adapter.create()
            engine.setup(module, blocks, spec, context)
            for _ in range(3):
                for micro_batch in range(spec.accumulate):
                    batch = (torch.randn(4, 8), torch.randint(4, (4,)))
                    engine.forward_backward(batch, loss, sync=micro_batch == spec.accumulate - 1)
                engine.optimizer_step()
        return races.pairs

    yield train
    dist.destroy_process_group()


def loss(module: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    return F.cross_entropy(module(batch[0]).float(), batch[1])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"overlap": True},
        {"overlap": False},
        {"overlap": True, "options": {"in_flight": 3}},
        {"overlap": True, "accumulate": 2, "clip_norm": 1.0},
        {"overlap": True, "precision": "bf16_master"},
    ],
    ids=str,
)
def test_computation_and_communication_do_not_race(stage: int, settings: Settings, races: Any) -> None:
    for bucket_mb in (None, 0.005):
        assert races(stage=stage, bucket_mb=bucket_mb, **settings) == []


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("broken", [UsedTooEarly, SentTooEarly])
def test_a_missing_wait_is_a_race(stage: int, broken: type[NcclCollectives], races: Any) -> None:
    assert any("c10d" in race for race in races(broken, stage=stage, bucket_mb=0.005, overlap=True))
