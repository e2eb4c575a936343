"""Collectives that were timed by themselves say what a message costs, and enter the fit."""

import pytest

from analysis.projection.curve import ScalingCurve, curves
from analysis.projection.fabric import Fabric, LinkTime, collective_s
from analysis.projection.fit import fit
from analysis.projection.measured_links import measured_line
from analysis.projection.project import project
from analysis.projection.text import check_lines
from results.launches import Collective, CollectiveTimes, Launch
from results.record import NO_ENGINE, Record
from tests.fakes import cell
from tests.simulated_training import Cluster

SIZES = (1024, 65536, 1048576, 4194304)
HIDDEN = Cluster(alpha_s=1e-6, bytes_per_s=1e10)
"""Links that are so fast that steps say nothing of them."""


def timed(line: LinkTime, backend: str = "nccl", rate: str = "1gbit") -> Record:
    """Times of collectives over such links."""
    record = cell(gpus=4, launches=[], engine__name=NO_ENGINE)
    record.config["network"] = {"kind": "lab", "rate": rate, "delay": None, "hosts": None}
    record.resolved["backend"] = backend
    fabric = Fabric(line, trees=False)
    times = [
        CollectiveTimes(
            kind, size, [float(collective_s(Collective(kind, "float32", size // 4, 4, 1), backend, fabric))] * 3
        )
        for kind in ("all_reduce", "all_gather", "reduce_scatter", "broadcast")
        for size in SIZES
    ]
    record.launches = [Launch(at, "", {}, [], collective_times=times) for at in range(3)]
    return record


def curve() -> ScalingCurve:
    return curves([HIDDEN.record(2, ranks, launches=3) for ranks in (1, 2, 4)])[0][0]


@pytest.mark.parametrize("backend", ["nccl", "gloo"])
def test_latency_and_bandwidth_of_a_message_are_those_of_the_links(backend):
    of_steps = curve()
    for record in of_steps.records.values():
        record.resolved["backend"] = backend
    line = measured_line([timed(LinkTime(3e-4, 8e-8), backend)], of_steps)
    assert line is not None
    assert (line.alpha_s, line.s_per_byte) == (pytest.approx(3e-4, rel=0.01), pytest.approx(8e-8, rel=0.01))


def test_links_of_another_network_are_left_out():
    assert measured_line([timed(LinkTime(3e-4, 8e-8), rate="5mbit")], curve()) is None


def test_timed_links_make_the_bandwidth_known_where_steps_hide_it():
    without, timed_links = fit([curve()])[0], fit([curve()], Fabric(LinkTime(1e-6, 1e-10)))[0]
    assert timed_links.draws[:, 1].std() < 0.3 * without.draws[:, 1].std()
    assert timed_links.fabric.inside.s_per_byte == pytest.approx(1e-10, rel=0.5)


def test_a_projection_names_the_links_that_it_started_from():
    records = [HIDDEN.record(2, ranks, launches=3) for ranks in (1, 2, 4)]
    (projection,), _ = project([*records, timed(LinkTime(2e-4, 1e-8))], [8])
    assert next(check_lines(projection)) == "Links from workload=collectives: 200 µs per message, 100 MB/s."
