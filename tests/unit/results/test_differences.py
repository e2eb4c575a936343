"""Differences between records: named, ordered, and without what differs between any two sweeps."""

from __future__ import annotations

from results.differences import Difference, differences, machine_differences, surroundings
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


def test_only_what_makes_another_machine_keeps_records_out_of_a_sweep() -> None:
    before: Environment = {"torch": "2.11.0", "cpu_model": "A", "kernel": "a"}
    now: Environment = {"torch": "2.12.0", "cpu_model": "A", "kernel": "b"}
    assert list(map(str, machine_differences(before, now))) == ["torch: 2.11.0 then, 2.12.0 now"]
