"""The projection in a report: a check and a table from three world sizes on, and nothing below."""

from __future__ import annotations

import pytest

from analysis.report.model.content import Content
from analysis.report.sections.projection import section
from results.record import Record
from tests.simulated_training import Cluster


def records(*sizes: int, network: str = "lab") -> list[Record]:
    made = [Cluster(layers=4).record(2, size, launches=3, steps=3) for size in sizes]
    for record in made:
        record.config["network"]["kind"] = network
    return made


@pytest.mark.filterwarnings("error")
def test_three_world_sizes_are_projected_to_eight_times_the_largest() -> None:
    made = section(Content(records(1, 2, 4)))
    assert [row.values[1].text for row in made.tables[0].rows] == ["8", "16", "32"]
    assert all(value.below.startswith("[") for value in made.tables[0].rows[0].values[2:5])
    assert made.lists[0].points[0].text.startswith("Check: fitted on up to 2 GPUs, the model predicts")


def test_two_world_sizes_have_no_section() -> None:
    assert section(Content(records(1, 2))).is_empty


def test_without_a_network_only_the_check_is_shown() -> None:
    made = section(Content(records(1, 2, 4, network="none")))
    assert not made.tables
    assert "no network between hosts was measured" in made.lists[0].points[-1].text
