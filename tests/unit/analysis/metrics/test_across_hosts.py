"""Hosts in reports: efficiency within and across hosts, what each host saw and sent, and their health."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from analysis.metrics import hosts, scaling
from analysis.metrics.across_hosts import across
from analysis.metrics.interference import background_share
from analysis.report import markdown
from analysis.report.document import document
from analysis.report.model.content import Content
from analysis.report.terminal import print_summary
from results.health import Health, HostHealth, HostLink
from results.record import Record
from tests import fakes

TWO = [{"name": f"n{at}", "interface": "eth0", "cores": 2, "gpus": []} for at in (1, 2)]
QUIET = {"cpus": 2.0, "window_s": 1.0, "background_cpu_s": 0.02, "wire_sent_bytes": 4 * 2.0**20}
LOADED = {"cpus": 2.0, "window_s": 1.0, "background_cpu_s": 1.0, "throttled_s": 0.5, "wire_sent_bytes": 8 * 2.0**20}


def of_cluster(gpus: int, step_s: float, ranks: list[int], **changes: Any) -> Record:
    """A configuration of a sweep on two hosts; ``ranks`` of each host that it uses."""
    launches = [fakes.launch(number, [[step_s] * 4] * gpus) for number in range(3)]
    if len(ranks) > 1:
        launches = [
            replace(launch, conditions_by_host=[QUIET, LOADED], background_processes_by_host=[{}, {}])
            for launch in launches
        ]
    record = fakes.cell(gpus=gpus, launches=launches, verdicts=[], **changes)
    record.environment = record.environment | {"hosts": TWO, "host_count": 2}
    if len(ranks) > 1:
        used: Any = [host | {"ranks": count} for host, count in zip(TWO, ranks, strict=True)]
        record.resolved["hosts"] = used
    return record


def sweep() -> list[Record]:
    health = Health(
        [
            HostHealth("n1", [2e10], 0.0, 1e-4, 0.0, 2**40, 2**33),
            HostHealth("n2", [1e10], 0.25, 1e-4, 9.0, 2**40, 2**33, [], ["matrix products at 10 GFLOP/s"]),
        ],
        [HostLink(0, 1, 50e-6, 1.25e9), HostLink(1, 0, 60e-6, 1.125e9)],
    )
    cells = [of_cluster(1, 0.010, [1]), of_cluster(2, 0.0125, [2]), of_cluster(4, 0.020, [2, 2])]
    for record in cells:
        record.health = health
    return cells


def test_efficiency_is_the_product_of_that_within_a_host_and_that_across_hosts() -> None:
    records = sweep()
    one, two, four = across(records)
    assert one is None and two is None and four is not None
    assert four.partner is records[1] and four.interval.value == pytest.approx(0.0125 / 0.020)
    whole = [entry.interval.value for entry in scaling.efficiencies(records) if entry]
    assert whole[2] == pytest.approx(whole[1] * four.interval.value)


def test_spreading_the_same_ranks_over_two_hosts_is_compared_with_one_host() -> None:
    together, spread = of_cluster(2, 0.0125, [2]), of_cluster(2, 0.0150, [1, 1])
    together.config["cluster"], spread.config["cluster"] = {"ranks_per_host": None}, {"ranks_per_host": 1}
    _, crossing = across([together, spread])
    assert crossing is not None and crossing.interval.value == pytest.approx(0.0125 / 0.0150)


def test_background_load_is_that_of_the_most_loaded_host() -> None:
    four = sweep()[2]
    assert background_share(four.launches[0]) == 0.5
    assert hosts.seen([four], "n1").largest_share == 0.01
    loaded = hosts.seen([four], "n2")
    assert (loaded.launches, loaded.mean_share, loaded.throttled_s) == (3, 0.5, 1.5)
    assert hosts.sent_by_host(four) == [2.0**20, 2.0**21]


def test_cores_of_all_hosts_count_for_the_cap_of_a_world_on_several() -> None:
    assert scaling.devices(sweep()[2]) == 4 and scaling.devices(sweep()[1]) == 2


def test_a_report_shows_hosts_links_and_what_crossing_hosts_costs(capsys: pytest.CaptureFixture[str]) -> None:
    content = Content(sweep())
    text = markdown.render(document(content))
    assert "| n2 | eth0 | 2 | 10.0 | +250.000 ± 0.100 | 9.00 | 10.0 | 60.0 | 1,024 | 8.00 | 50 % at most 50 %" in text
    assert "| n2 | n1 | 9.00 | 60.0 |" in text
    assert "**n2.** matrix products at 10 GFLOP/s" in text
    assert "4 on 2 hosts | 2 2+2 | 80 % 2 ranks | 62 %" in text
    assert "n1 1.00; n2 2.00" in text
    assert list(content.table["hosts"]) == [1, 1, 2]
    print_summary(content, None)
    assert "4 on 2" in capsys.readouterr().out


def test_a_sweep_on_one_machine_has_no_sections_of_hosts() -> None:
    titles = [section.title for section in document(Content([fakes.cell(gpus=2)])).sections]
    assert "Hosts" not in titles and "Within a host and across hosts" not in titles
