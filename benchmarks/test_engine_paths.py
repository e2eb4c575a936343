"""Hot paths of native: layout, packing of gradients, update of a shard, its copy to the bucket, collectives by size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from bench.engines.native.bucket import Bucket
from bench.engines.native.collectives import Collectives
from bench.engines.native.gradients import BucketGradients
from bench.engines.native.layout import lay_out
from bench.engines.native.offload import OnDevice
from bench.engines.native.optimizer import ShardOptimizer
from bench.engines.native.policy import POLICIES
from bench.engines.spec import EngineSpec
from benchmarks.peer import KINDS, call, world_of_two

SHAPES = [(512, 512), (512,)] * 16
"""16 layers, 4.2 million elements, in one bucket."""
RANKS = 4
ROUNDS = 100
cpu_time = pytest.mark.benchmark(timer=time.process_time)
"""For what one thread computes: other processes disturb its own time much less than the clock's."""


class Alone:
    """Rank 0 of a world in which nothing is sent: what a step costs without its communication."""

    rank, world_size = 0, RANKS

    def reduce_scatter(self, whole: Tensor, out: Tensor) -> object:
        raise NotImplementedError

    def all_reduce(self, whole: Tensor) -> object:
        raise NotImplementedError

    def all_gather(self, whole: Tensor) -> object:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bucket(*, master: bool = False) -> Bucket:
    dtype = torch.bfloat16 if master else torch.float32
    parameters = [nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in SHAPES]
    counts = [parameter.numel() for parameter in parameters]
    (layout,) = lay_out(counts, range(len(counts)), None, RANKS, parameters[0].element_size())
    return Bucket(layout, parameters, Alone(), POLICIES[1], master_weights=master)  # type: ignore[arg-type]


@cpu_time
def test_layout_of_a_thousand_parameters(benchmark: BenchmarkFixture) -> None:
    counts = [1024, 64, 64 * 1024, 1024] * 250
    layouts = benchmark(lay_out, counts, range(1000), 2**20, 8, 4)
    assert sum(len(layout.slots) for layout in layouts) == 1000


@cpu_time
def test_gradients_are_packed_into_a_bucket(benchmark: BenchmarkFixture) -> None:
    packed = BucketGradients(bucket(), POLICIES[1])
    gradients = [torch.ones(shape) for shape in SHAPES]

    def pack() -> Tensor:
        packed.written.clear()
        for number, gradient in enumerate(gradients):
            packed.add(number, gradient)
        return packed.fill_gaps()

    assert float(benchmark(pack).sum()) == sum(gradient.numel() for gradient in gradients)


@cpu_time
def test_a_master_shard_is_copied_into_its_bucket(benchmark: BenchmarkFixture) -> None:
    """bf16_master: the unpacking of an update, fp32 to bf16."""
    updated = bucket(master=True)
    updated.sharded_param.fill_(2.0)
    benchmark(updated.copy_in)
    assert bool((updated.unsharded_param[updated.own_elements] == 2).all())


@cpu_time
def test_a_shard_is_updated(benchmark: BenchmarkFixture) -> None:
    entry = BucketGradients(bucket(), POLICIES[1])
    entry.reduced_grad = torch.ones_like(entry.bucket.sharded_param)
    spec = EngineSpec(stage=1, world_size=RANKS, device="cpu", backend="gloo", optimizer="adam", lr=1e-3)
    optimizer = ShardOptimizer(entry, spec, OnDevice(entry.bucket))
    before = entry.bucket.sharded_param.clone()

    def update() -> None:
        optimizer.start_step()
        optimizer.step(1.0)

    benchmark(update)
    assert not torch.equal(before, entry.bucket.sharded_param)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collectives, Connection]]:
    with world_of_two(tmp_path_factory.mktemp("world")) as joined:
        yield joined


@pytest.mark.parametrize("size_kib", [4, 256, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_collectives_by_size(
    kind: str, size_kib: int, world: tuple[Collectives, Connection], benchmark: BenchmarkFixture
) -> None:
    collectives, peer = world
    elements = size_kib * 1024 // 4
    peer.send((kind, elements, ROUNDS + 3))
    benchmark.pedantic(call(collectives, kind, elements), rounds=ROUNDS, iterations=1, warmup_rounds=3)
