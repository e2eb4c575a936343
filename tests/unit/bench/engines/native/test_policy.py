"""The sharding policies of the stages, against the table in Rajbhandari et al., ZeRO (SC 2020), figure 1."""

from __future__ import annotations

import pytest

from bench.engines.native import CAPABILITIES
from bench.engines.native.policy import POLICIES


def test_each_stage_shards_one_more_kind_of_state() -> None:
    sharded = {
        stage: (policy.shard_optimizer, policy.shard_gradients, policy.shard_parameters)
        for stage, policy in POLICIES.items()
    }
    assert sharded == {
        0: (False, False, False),
        1: (True, False, False),
        2: (True, True, False),
        3: (True, True, True),
    }
    assert set(POLICIES) == set(CAPABILITIES.stages)


@pytest.mark.parametrize(
    ("stage", "reduce_scatters", "every_micro_batch", "all_gathers_after_update"),
    [(0, False, False, False), (1, True, False, True), (2, True, True, True), (3, True, True, False)],
)
def test_collectives_follow_from_what_is_sharded(
    stage: int, reduce_scatters: bool, every_micro_batch: bool, all_gathers_after_update: bool
) -> None:
    policy = POLICIES[stage]
    assert policy.reduce_scatters == reduce_scatters
    assert policy.reduces_every_micro_batch == every_micro_batch
    assert policy.all_gathers_after_update == all_gathers_after_update
