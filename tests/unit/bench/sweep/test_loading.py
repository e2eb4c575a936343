"""``batch_tokens``: equal work in sequences of any length, on any number of ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from bench.checks import ConfigError
from bench.plan.resolve import plan
from bench.rank_results import LoadResult
from bench.sweep.loading import samples
from results.settings import Config
from tests.conftest import CPU_ONLY


@pytest.mark.parametrize(("gpus", "length", "rank_batch"), [(1, 32, 16), (2, 32, 8), (2, 64, 4), (4, 128, 1)])
def test_each_step_has_the_same_tokens(
    gpus: int, length: int, rank_batch: int, make_config: Callable[..., Config]
) -> None:
    config = make_config(workload="gpt", gpus=gpus, batch_tokens=512)
    count = samples(config, LoadResult(unit="token", units_per_sample=length))
    cell = dataclasses.replace(plan([config], CPU_ONLY, cores=2)[0], samples=count)
    assert (cell.rank_batch, cell.global_batch * length) == (rank_batch, 512)


def test_tokens_that_are_no_whole_sequences_have_one_line(make_config: Callable[..., Config]) -> None:
    tokens, images = LoadResult(unit="token", units_per_sample=64), LoadResult(unit="sample", units_per_sample=1)
    with pytest.raises(ConfigError, match=r"batch_tokens=500 cannot be shared evenly by gpus=2 .* a multiple of 128"):
        samples(make_config(workload="gpt", gpus=2, batch_tokens=500), tokens)
    with pytest.raises(ConfigError, match="batch_tokens=500 needs a workload of tokens; digits counts in samples"):
        samples(make_config(batch_tokens=500), images)
