"""The sharding policy of each stage: the only place where a stage is a number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShardingPolicy:
    """The kinds of state of which each rank keeps a shard; it keeps the other kinds unsharded."""

    shard_optimizer: bool
    shard_gradients: bool
    shard_parameters: bool

    @property
    def reduce_scatters(self) -> bool:
        """Gradients are reduce-scattered: a rank needs only the sum of the shard that it updates. Else all-reduced."""
        return self.shard_optimizer

    @property
    def reduces_every_micro_batch(self) -> bool:
        """Micro-batches accumulate in the gradient's shard, so no unsharded gradient could wait for the last one."""
        return self.shard_gradients

    @property
    def all_gathers_after_update(self) -> bool:
        """Unsharded parameters outlive the step, so the shards that other ranks updated are all-gathered."""
        return self.shard_optimizer and not self.shard_parameters


POLICIES = {
    0: ShardingPolicy(shard_optimizer=False, shard_gradients=False, shard_parameters=False),
    1: ShardingPolicy(shard_optimizer=True, shard_gradients=False, shard_parameters=False),
    2: ShardingPolicy(shard_optimizer=True, shard_gradients=True, shard_parameters=False),
    3: ShardingPolicy(shard_optimizer=True, shard_gradients=True, shard_parameters=True),
}
"""By stage. Rajbhandari et al., ZeRO (SC 2020), section 5."""
