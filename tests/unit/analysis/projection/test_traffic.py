"""The collectives at another world size follow one of two rules, or there is no projection."""

import pytest

from analysis.projection.traffic import NotProjected, collectives_at
from results.launches import Collective


def call(kind: str, elements: int, ranks: int, count: int) -> Collective:
    return Collective(kind, "float32", elements, ranks, count)


def test_a_collective_over_all_ranks_keeps_its_array():
    measured = {size: [call("all_reduce", 1000, size, 3)] for size in (2, 4)}
    assert collectives_at(measured, 64) == [call("all_reduce", 1000, 64, 3)]


def test_padding_does_not_break_the_rule():
    measured = {2: [call("all_gather", 1000, 2, 1)], 4: [call("all_gather", 1024, 4, 1)]}
    assert collectives_at(measured, 8) == [call("all_gather", 1024, 8, 1)]


def test_an_exchange_has_more_and_smaller_messages():
    measured = {2: [call("send", 512, 2, 3)], 4: [call("send", 256, 4, 9)]}
    assert collectives_at(measured, 16) == [call("send", 64, 16, 45)]


def test_packed_messages_have_one_part_of_the_codes_and_scales():
    """Of 8,192 elements: at 2 ranks 4,096 codes and 16 scales, at 8 ranks 1,024 and 4."""
    measured = {2: [Collective("send", "int8", 4096 + 4 * 16, 2, 3)]}
    assert collectives_at(measured, 8) == [Collective("send", "int8", 1024 + 4 * 4, 8, 21)]


def test_a_shard_group_keeps_its_size_and_its_replicas_grow():
    measured = {
        4: [call("all_gather", 8, 2, 1), call("all_reduce", 4, 2, 1)],
        8: [call("all_gather", 8, 2, 1), call("all_reduce", 4, 4, 1)],
    }
    assert [one.group_size for one in collectives_at(measured, 32, shard_size=2)] == [2, 16]


def test_a_world_of_one_shard_group_says_nothing_of_replicas():
    both = [call("all_gather", 8, 2, 1), call("all_reduce", 4, 2, 1)]
    measured = {2: both[:1], 4: both}
    assert [one.group_size for one in collectives_at(measured, 32, shard_size=2)] == [2, 16]
    with pytest.raises(NotProjected, match="no larger world size was measured"):
        collectives_at({2: both[:1]}, 32, shard_size=2)


def test_calls_that_follow_no_rule_are_not_projected():
    measured = {2: [call("all_reduce", 10, 2, 1)], 4: [call("all_reduce", 10, 4, 5)]}
    with pytest.raises(NotProjected, match="its all_reduce calls change between world sizes 2, 4"):
        collectives_at(measured, 8)


def test_a_measured_world_size_is_taken_as_counted():
    measured = {2: [call("all_reduce", 10, 2, 1)], 4: [call("all_reduce", 10, 4, 5)]}
    assert collectives_at(measured, 4) == measured[4]
