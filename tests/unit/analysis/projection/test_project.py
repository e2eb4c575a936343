"""What a projection answers, and what it does not."""

from typing import Any, ClassVar

import numpy as np
import pytest

from analysis.projection.curve import curves
from analysis.projection.fabric import LinkTime
from analysis.projection.fit import Describe, undescribed
from analysis.projection.held_out import Projector
from analysis.projection.least_squares import Floats
from analysis.projection.model import Parts
from analysis.projection.project import Links, knee_of, project
from analysis.projection.text import check_lines
from results.launches import Collective
from results.record import Record
from tests.fakes import measured
from tests.simulated_training import Cluster


def sweep(
    stages: tuple[int, ...] = (0, 2), sizes: tuple[int, ...] = (1, 2, 4), network: str = "lab", **changes: Any
) -> list[Record]:
    records = [Cluster(**changes).record(stage, size, launches=3, steps=4) for stage in stages for size in sizes]
    for record in records:
        record.config["network"]["kind"] = network
    return records


def test_the_fastest_configuration_comes_first():
    (projection,), rejected = project(sweep(), [8, 16])
    assert not rejected
    assert list(projection.rows) == [8, 16]
    for rows in projection.rows.values():
        assert [row.throughput_per_s for row in rows] == sorted((row.throughput_per_s for row in rows), reverse=True)
        assert all(row.projected.low_s < row.projected.step_s < row.projected.high_s for row in rows)
        for row in rows:
            slow, fast = row.throughput_band
            assert slow * row.projected.high_s == pytest.approx(row.throughput_per_s * row.projected.step_s)
            assert fast * row.projected.low_s == pytest.approx(row.throughput_per_s * row.projected.step_s)
            assert row.efficiency_band[1] / row.efficiency == pytest.approx(fast / row.throughput_per_s)


def test_one_host_without_a_network_is_not_projected_to_many():
    (projection,), _ = project(sweep(network="none"), [64])
    assert projection.rows == {}
    assert projection.not_projected == [
        "64 GPUs: no network between hosts was measured; describe it with --link, --latency and --gpus-per-host"
    ]


def test_a_described_network_is_used_between_hosts():
    fast, slow = (
        project(sweep(network="none", alpha_s=1e-6), [64], Links(LinkTime(1e-5, seconds), 1e-11, 4))[0][0].rows[64][0]
        for seconds in (1e-11, 1e-8)
    )
    assert slow.projected.step_s > 1.5 * fast.projected.step_s


def test_a_wait_for_data_is_not_projected_as_computation():
    records = sweep(stages=(0,))
    for record in records:
        record.config["data"] = "loader"
    projections, (reason,) = project(records, [8])
    assert projections == []
    assert reason.endswith("data=loader: the wait for data is not projected; run with data=pool")


def test_too_far_is_not_projected():
    (projection,), _ = project(sweep(), [1024])
    assert projection.not_projected == ["1024 GPUs: more than 64 times the largest measured world size, 4"]


def test_two_world_sizes_are_rejected_with_the_number_needed():
    projections, rejected = project(sweep(sizes=(1, 2)), [8])
    assert projections == []
    assert rejected[0].endswith("a projection that checks itself needs three world sizes, and there are 2 (1, 2)")


def test_ranks_that_share_cores_do_not_predict_more_machines():
    records = sweep(stages=(0,), contention=0.1)
    records[-1].verdicts = ["oversubscribed"]
    assert "1 more are oversubscribed" in project(records, [8])[1][0]
    records[-1].config["workload"] = {"name": "calibrated", "factory": "workloads.calibrated:Calibrated", "layers": 4}
    assert len(curves(records[-1:])[0]) + len(curves(records[-1:])[1]) == 1


@pytest.mark.parametrize("name", ["hosts", "local_steps"])
def test_settings_that_the_model_does_not_have_are_rejected_by_its_name(name):
    records = sweep(stages=(0,))
    for record in records:
        (record.config["network"] if name == "hosts" else record.config)[name] = 2
    assert name in project(records, [8])[1][0]


def test_muon_is_projected_only_where_every_rank_updates_all():
    records = sweep(stages=(0, 1))
    for record in records:
        record.config["optimizer"] = "muon"
    projections, (rejected,) = project(records, [8])
    assert rejected.endswith("its update is not divided by the ranks; valid: stage=0, another optimizer")
    assert len(projections) == 1


def test_scaling_stops_to_pay_where_communication_outgrows_computation():
    (projection,), _ = project(sweep(stages=(2,), alpha_s=5e-4, layers=4, layer_bytes=4096), [256])
    (knee,) = projection.knees
    assert knee.bottleneck == "latency"
    assert 4 <= knee.low <= knee.ranks <= knee.high < 256


def test_strong_scaling_stops_to_pay_at_an_update_that_does_not_shrink():
    made = sweep(stages=(0,), strong=True, layers=4, alpha_s=1e-6, bytes_per_s=1e10, update_s=0.02)
    (projection,), _ = project(made, [64])
    (knee,) = projection.knees
    assert knee.bottleneck == "update"
    assert 1 <= knee.ranks <= 4


def test_a_step_to_slow_links_between_hosts_is_no_end_of_scaling():
    """Bytes between hosts take the same time on 8 as on 64 GPUs: doubling does not pay once, and then does again."""
    links = Links(LinkTime(1e-6, 1e-8), None, 4)
    (projection,), _ = project(sweep(stages=(0,), network="none", alpha_s=1e-6, bytes_per_s=1e10), [64], links)
    (knee,) = projection.knees
    assert knee.dips == {4: "bandwidth"}
    assert (knee.ranks, knee.bottleneck) == (64, "")


def test_links_between_hosts_that_were_measured_need_no_description():
    (projection,), _ = project(sweep(stages=(0,), sizes=(1, 2, 4, 8), network="none", per_host=2), [32])
    assert [row.projected.ranks for row in projection.rows[32]] == [32]


@pytest.mark.parametrize(
    ("changes", "ranks", "reason"),
    [
        ({"strong": True}, 128, "scaling=strong shares a batch of 64 samples evenly; valid: divisors of 64"),
        ({"strong": True}, 48, "scaling=strong shares a batch of 64 samples evenly; valid: divisors of 64"),
        ({}, 9, "shard_size=2 does not divide the world size; valid: its multiples"),
        ({}, 1, "shard_size=2 does not divide the world size; valid: its multiples"),
    ],
)
def test_a_world_size_that_cannot_run_is_not_projected(changes, ranks, reason):
    records = sweep(stages=(0,), sizes=(1, 2, 4), **changes)
    for record in records:
        record.config["shard_size"] = None if changes else 2
    (projection,), _ = project(records, [ranks])
    assert projection.not_projected[0].startswith(f"{ranks} GPUs: {reason}")


def test_shard_groups_that_follow_the_hosts_are_not_projected_as_full_sharding():
    records = sweep(stages=(3,))
    for record in records:
        record.config["shard_size"] = 0
    projections, (reason,) = project(records, [8])
    assert projections == []
    assert reason.endswith("its groups follow the hosts, which is not projected; valid: the number, such as 8")


def test_collectives_that_follow_no_rule_are_rejected_with_the_reason():
    records = sweep(stages=(0,))
    for record, calls in zip(records[1:], (1, 5), strict=True):
        record.collectives = [Collective("all_reduce", "float32", 10, record.config["gpus"], calls)]
    projections, (reason,) = project(records, [8])
    assert projections == []
    assert "its all_reduce calls change between world sizes 2, 4" in reason


def test_tokens_of_all_ranks_are_one_batch_that_they_share():
    records = sweep(stages=(0,), strong=True)
    for record in records:
        assert record.model is not None
        record.config |= {"scaling": "weak", "batch_tokens": 64 * record.model.units_per_sample, "batch_size": 7}
    (projection,), _ = project(records, [8, 48])
    (row,) = projection.rows[8]
    assert row.throughput_per_s == pytest.approx(records[0].config["batch_tokens"] / row.projected.step_s)
    assert projection.not_projected[0].startswith("48 GPUs: batch_tokens shares a batch of 64 samples evenly")


def test_a_size_on_two_hosts_is_not_predicted_from_one_host():
    (projection,), _ = project(sweep(stages=(0,), sizes=(2, 4, 8), network="none", per_host=4), [16])
    assert projection.checked == []
    (line,) = check_lines(projection)
    assert line.startswith("Not checked: no fit on fewer hosts has the links between them.")


class Drawn(Projector):
    """Two world sizes and three draws (latency, bandwidth), of which another has the median step at each size."""

    parts_s: ClassVar = {1: [(0.55, 0.0), (0.0, 0.6), (0.5, 0.0)], 2: [(0.8, 0.0), (0.3, 0.6), (1.0, 0.0)]}

    def __init__(self, deviation: float) -> None:
        self.curves = curves(sweep(stages=(0,)))[0]
        self.deviation = deviation

    def drawn_s(self, place: int, ranks: int, describe: Describe = undescribed) -> Floats:
        return np.array([latency_s + bandwidth_s for latency_s, bandwidth_s in self.parts_s[ranks]])

    def median_draw(self, values: Floats) -> tuple[Any, int]:
        return self, int(np.argsort(values)[1])

    def parts(self, place: int, ranks: int, draw: int, describe: Describe) -> Parts:
        return Parts(0.0, 0.0, 0.0, *self.parts_s[ranks][draw], 0.0)

    def own_deviation(self, place: int, ranks: int) -> float:
        return self.deviation * ranks


def test_what_grows_most_is_that_of_one_draw_at_both_sizes():
    """In no draw does bandwidth grow, but the median draw has none at one GPU, and most at two."""
    knee = knee_of(Drawn(0.0), 0, [1, 2])
    assert (knee.ranks, knee.bottleneck, knee.low, knee.high) == (1, "latency", 1, 1)


def test_the_error_of_the_model_widens_the_band_of_the_knee():
    knee = knee_of(Drawn(0.2), 0, [1, 2])
    assert (knee.low, knee.ranks, knee.high) == (1, 1, 2)


def test_what_does_not_fit_the_memory_is_not_the_answer():
    records = [measured(record) for record in sweep()]
    (projection,), _ = project(records, [8], memory_bytes=7e6)
    rows = projection.rows[8]
    assert [row.fits for row in rows] == sorted((bool(row.fits) for row in rows), reverse=True)
    peaks = {row.projected.label: row.peak_bytes for row in rows}
    assert len(set(peaks.values())) == 2
