"""Differences between records: named, ordered, and without what differs between any two sweeps."""

from __future__ import annotations

from results.differences import Difference, differences, machine_differences, resolved, surroundings
from results.environment import Environment
from tests.fakes import cell


def test_values_of_each_side_are_listed_and_equal_ones_left_out() -> None:
    entries = differences([{"stage": 0, "lr": 0.1}, {"stage": 3, "lr": 0.1}], [{"stage": 3, "lr": 0.1, "tiles": None}])
    assert entries == [Difference("stage", "0, 3", "3"), Difference("tiles", "not recorded", "null")]


def test_code_comes_before_the_environment_and_settings_come_last() -> None:
    now = {"kernel": "b", "packages.numpy": "2", "a_setting": 1, "torch": "2", "resolved.threads": 2, "code": "b"}
    names = [entry.name for entry in differences([{}], [now])]
    assert names == ["code", "resolved.threads", "torch", "packages.numpy", "kernel", "a_setting"]


def test_time_and_load_are_no_differences_and_the_code_is_named_once() -> None:
    before, after = cell(), cell()
    after.environment |= {"time": "later", "load_average": [9.0], "git": {"commit": "f" * 40}}
    assert differences([surroundings(before)], [surroundings(after)]) == []


def test_hosts_differ_one_by_one_and_not_by_their_load() -> None:
    before, after = cell(), cell()
    for record, load, kernel in ((before, 1.0, "a"), (after, 9.0, "b")):
        record.environment["hosts"] = [{"name": "n1", "load_average": [load]}, {"name": "n2", "kernel": kernel}]
    assert list(map(str, differences([surroundings(before)], [surroundings(after)]))) == [
        "hosts.1.kernel: a then, b now"
    ]
    before.resolved["hosts"] = [{"name": "n1", "ranks": 1}, {"name": "n2", "ranks": 1}]
    after.resolved["hosts"] = [{"name": "a", "ranks": 2}]
    assert list(map(str, differences([resolved(before)], [resolved(after)]))) == [
        "resolved.hosts.0.name: n1 then, a now",
        "resolved.hosts.0.ranks: 1 then, 2 now",
        "resolved.hosts.1.name: n2 then, not recorded now",
        "resolved.hosts.1.ranks: 1 then, not recorded now",
    ]


def test_only_what_makes_another_machine_keeps_records_out_of_a_sweep() -> None:
    before: Environment = {"torch": "2.11.0", "cpu_model": "A", "kernel": "a"}
    now: Environment = {"torch": "2.12.0", "cpu_model": "A", "kernel": "b"}
    assert list(map(str, machine_differences(before, now))) == ["torch: 2.11.0 then, 2.12.0 now"]
