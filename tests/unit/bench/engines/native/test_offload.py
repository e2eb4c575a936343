"""The place of a shard's update in host memory."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from bench.engines.native.bucket import Bucket
from bench.engines.native.gradients import BucketGradients
from bench.engines.native.offload import CopyStreams, OnDevice, OnHost, UpdatePlace
from bench.engines.native.optimizer import ShardOptimizer
from bench.engines.spec import EngineSpec

SPEC = EngineSpec(optimizer="sgd", momentum=0.0, lr=0.5, world_size=1, device="cpu", backend="gloo")


class Shard:
    """What a place needs of a bucket and of its gradients."""

    def __init__(self) -> None:
        self.sharded_param = torch.tensor([1.0, 2.0]).bfloat16()
        self.reduced_grad = torch.tensor([4.0, -2.0]).bfloat16()
        self.has_matrices = False
        self.bucket = self


def place_of(shard: Shard, kind: str) -> UpdatePlace:
    bucket = cast(Bucket, shard)
    return (
        OnDevice(bucket) if kind == "device" else OnHost(bucket, CopyStreams(torch.device("cpu")), master_weights=True)
    )


@pytest.mark.parametrize("kind", ["device", "host"])
def test_a_skipped_step_changes_nothing_and_the_next_one_has_its_own_gradient(kind: str) -> None:
    shard = Shard()
    optimizer = ShardOptimizer(cast(BucketGradients, shard), SPEC, place_of(shard, kind))
    optimizer.start_step()
    optimizer.skip_step()
    assert shard.sharded_param.tolist() == [1.0, 2.0]
    shard.reduced_grad = torch.tensor([2.0, 2.0]).bfloat16()
    optimizer.start_step()
    optimizer.step(0.5)
    assert shard.sharded_param.tolist() == [0.5, 1.5]
