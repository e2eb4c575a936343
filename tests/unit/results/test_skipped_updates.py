"""What the loss scale before and after some steps says of skipped updates, and the warnings on steps without one."""

from __future__ import annotations

import pytest
import torch

from analysis.metrics.scaling import is_ranked
from bench.engines.native.loss_scaling import GROWTH_INTERVAL, LossScale
from bench.engines.scaling import LossScaling
from bench.measure.verdicts import updates_missed
from results.launches import Launch, RankSamples
from results.record import Record
from results.updates import Updates
from tests.fakes import cell as fake_cell
from tests.fakes import launch as fake_launch


def record(*launches: list[Updates], checked: list[Updates] | None = None) -> Record:
    ranks = [
        [RankSamples([0.1] * at.steps, [0.1] * at.steps, [], 1.0, [1.0] * at.steps, updates=at) for at in launch]
        for launch in launches
    ]
    made = [Launch(number, "", {}, samples) for number, samples in enumerate(ranks)]
    return Record("id", "", {}, {}, {}, launches=made, updates=checked or [])


@pytest.mark.parametrize("skips", [[], [0], [0, 1, 2], [2, 5, 6], list(range(8))], ids=str)
def test_skips_are_counted_from_the_scale_before_and_after(skips: list[int]) -> None:
    ours, torchs = LossScale(enabled=True), torch.amp.GradScaler("cpu")
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    before = [ours.read(), LossScaling.of(torchs)]
    for step in range(8):
        ours.update(skipped=step in skips)
        weight.grad = torch.full((1,), float("inf") if step in skips else 1.0)
        torchs.scale(torch.ones(1))
        torchs.step(optimizer)
        torchs.update()
    for earlier, now in zip(before, [ours.read(), LossScaling.of(torchs)], strict=True):
        assert earlier and now and now.skipped_since(earlier, 8) == len(skips)


def test_a_scale_that_doubled_meanwhile_hides_no_skip() -> None:
    scale = LossScale(enabled=True)
    for _ in range(GROWTH_INTERVAL - 2):
        scale.update(skipped=False)
    before = scale.read()
    for skipped in (False, False, True, False):  # doubled by the second, halved by the third
        scale.update(skipped=skipped)
    now = scale.read()
    assert before and now and now.scale == before.scale
    assert now.skipped_since(before, 4) == 1


def test_an_engine_that_scales_nothing_skips_nothing() -> None:
    assert LossScale(enabled=False).read() is None
    assert LossScaling.of(torch.amp.GradScaler("cpu", enabled=False)) is None


def test_skipped_steps_of_any_phase_are_counted_in_the_warning() -> None:
    good, bad = Updates(6), Updates(6, skipped=2)
    assert updates_missed(record([good, good])) == {}
    warnings = updates_missed(record([good, good], [good, bad], checked=[Updates(4, skipped=1)]))
    assert list(warnings) == ["skipped_updates"]
    assert "2 of 12 timed steps, 1 of 4 watched" in warnings["skipped_updates"]


def test_weights_that_stay_as_they_were_are_reported_unless_another_rank_changed_its_own() -> None:
    idle, moved = Updates(6, weights_changed=False), Updates(6)
    assert updates_missed(record([idle, moved])) == {}
    assert "the timed steps of 1 of 2 launches" in updates_missed(record([idle, idle], [moved, moved]))["no_update"]
    assert list(updates_missed(record([Updates(6, skipped=6, weights_changed=False)]))) == ["skipped_updates"]


@pytest.mark.parametrize("verdict", ["skipped_updates", "no_update"])
def test_a_cell_whose_steps_did_not_update_is_no_baseline_and_not_compared(verdict: str) -> None:
    cell = fake_cell(0, 1, [fake_launch(at, [[0.01] * 4]) for at in range(3)])
    assert is_ranked(cell)
    cell.verdicts = [verdict]
    assert not is_ranked(cell)
