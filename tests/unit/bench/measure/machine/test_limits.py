"""What control groups leave a process, in both versions, nested and mounted as containers do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.measure.machine import limits
from bench.measure.machine.limits import read, usable_cores
from bench.plan.jobs import Jobs
from bench.plan.resolve import plan
from tests.conftest import CPU_ONLY, MakeCell


class Machine:
    """A /proc/self and the control groups that it names."""

    def __init__(self, place: Path) -> None:
        self.own, self.groups = place / "self", place / "my groups"
        self._mounts: list[str] = []
        self.own.mkdir()
        self.groups.mkdir()

    def mount(self, kind: str, folder: str, options: str = "rw", root: str = "/") -> None:
        at = str(self.groups / folder).replace(" ", "\\040")
        self._mounts.append(f"31 23 0:{len(self._mounts)} {root} {at} rw,relatime - {kind} {kind} {options}")
        (self.own / "mountinfo").write_text("\n".join(self._mounts) + "\n")

    def member(self, text: str) -> None:
        (self.own / "cgroup").write_text(text)

    def write(self, folder: str, **files: str) -> None:
        place = self.groups / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    return Machine(tmp_path)


def test_version_2_counts_the_tightest_of_nested_groups(machine: Machine) -> None:
    machine.mount("cgroup2", "")
    machine.member("0::/slice/job\n")
    machine.write("slice", cpu__max="150000 100000", memory__max="4096", pids__max="max")
    machine.write("slice/job", cpu__max="400000 100000", memory__max="max", cpuset__cpus="0-2")
    bounds = {"cpu.max": "150000 100000", "cpuset.cpus": "0-2", "memory.max": "4096"}
    assert read(machine.own) == limits.GroupLimits(bounds)
    assert usable_cores(machine.own) == 1.5


def test_version_1_has_a_hierarchy_for_each_controller(machine: Machine) -> None:
    machine.mount("cgroup", "cpu,cpuacct", "rw,cpu,cpuacct")
    machine.mount("cgroup", "memory", "rw,memory")
    machine.mount("cgroup2", "unified")
    machine.member("4:memory:/m\n2:cpu,cpuacct:/job\n1:name=systemd:/cpu\n0::/\n")
    machine.write("cpu,cpuacct/job", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    machine.write("cpu,cpuacct", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    machine.write("memory/m", memory__limit_in_bytes="9223372036854771712")
    assert read(machine.own).by_name == {"cpu.max": "50000 100000"}
    assert usable_cores(machine.own) == 0.5
    assert [place.name for place in limits.groups("cpu", machine.own)] == ["job", "cpu,cpuacct", "unified"]


@pytest.mark.parametrize(
    ("root", "path"), [("/docker/7", "/docker/7"), ("/", "/../other"), ("/docker/7", "/elsewhere"), ("/", "/hidden")]
)
def test_a_container_sees_its_group_at_the_top_whatever_it_is_called(root: str, path: str, machine: Machine) -> None:
    machine.mount("cgroup2", "", root=root)
    machine.member(f"0::{path}\n")
    machine.write("", cpu__max="200000 100000")
    assert usable_cores(machine.own) == 2


def test_without_a_quota_or_without_control_groups_the_affinity_counts(machine: Machine) -> None:
    assert usable_cores(machine.own) == 4
    machine.mount("cgroup2", "")
    machine.member("0::/\n")
    machine.write("", cpu__max="max 100000", memory__max="max")
    assert (read(machine.own), usable_cores(machine.own)) == (limits.GroupLimits(), 4)


def test_a_limit_that_cannot_be_read_is_not_taken_for_none(machine: Machine) -> None:
    machine.mount("cgroup2", "")
    machine.member("0::/\n")
    (machine.groups / "cpu.max").mkdir()
    assert read(machine.own).unreadable.startswith("cpu.max of ")


def test_half_a_core_is_shared_by_one_rank_of_one_thread(make_cell: MakeCell) -> None:

    half, whole = (plan([make_cell(gpus=1).config], CPU_ONLY, cores=cores)[0] for cores in (0.5, 1))
    assert half.oversubscribed(CPU_ONLY) and not whole.oversubscribed(CPU_ONLY)
    assert half.threads == Jobs(half, Path()).reference().threads == 1


def test_the_cores_that_an_affinity_leaves_out_are_counted_and_it_is_kept() -> None:
    own = os.sched_getaffinity(0)
    narrow = {min(own)}
    all_cores = limits.cores_without_affinity()
    assert all_cores >= len(own)
    os.sched_setaffinity(0, narrow)
    try:
        assert limits.cores_without_affinity() == all_cores
        assert os.sched_getaffinity(0) == narrow
    finally:
        os.sched_setaffinity(0, own)
