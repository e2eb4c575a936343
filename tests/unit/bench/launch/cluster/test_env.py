"""``cluster=env`` reads which node it is from what started it, and leaves nothing of that to ranks."""

from __future__ import annotations

import os

import pytest

from bench.checks import ConfigError
from bench.cli.overrides import cluster_of
from bench.launch.cluster import env
from results.host_settings import Cluster

SECRET = {"BENCH_CLUSTER_SECRET": "0123456789abcdef\n"}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "1"}
MPIRUN = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        (TORCHRUN, (1, 2)),
        (MPIRUN, (0, 3)),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}, (2, 4)),
        ({"JOB_COMPLETION_INDEX": "1", "WORLD_SIZE": "2"}, (1, 2)),
    ],
)
def test_each_starter_names_the_node(variables: dict[str, str], place: tuple[int, int]) -> None:
    assert env.place(variables) == place


def test_several_processes_on_a_node_are_rejected_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="LOCAL_WORLD_SIZE=4 on this one; use torchrun --nproc-per-node=1"):
        env.place(TORCHRUN | {"LOCAL_WORLD_SIZE": "4"})


def test_without_a_starter_the_variables_to_set_are_named() -> None:
    with pytest.raises(ConfigError, match="set RANK and WORLD_SIZE"):
        env.place({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"})  # a batch script, which is one process


@pytest.mark.parametrize("secret", [{}, {"BENCH_CLUSTER_SECRET": " " * 16}, {"BENCH_CLUSTER_SECRET": "\udc80" * 16}])
def test_the_secret_is_required(secret: dict[str, str]) -> None:
    with pytest.raises(
        ConfigError, match="BENCH_CLUSTER_SECRET with the same secret on every node; valid: at least 16"
    ):
        env.enter(TORCHRUN | secret)


def test_ranks_inherit_neither_the_secret_nor_the_number_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "_node", None)
    variables = {
        **TORCHRUN,
        **SECRET,
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "x",
        "OMP_NUM_THREADS": "1",
        "PATH": "/bin",
    }
    node = env.enter(variables)
    assert (node.index, node.size, node.master) == (1, 2, "10.0.0.1")
    assert node.secret == "0123456789abcdef", "as a line of a file has it"
    assert variables == {"OMP_NUM_THREADS": "1", "PATH": "/bin"}
    assert env.coordinator_address(Cluster(kind="env")) == "10.0.0.1"
    assert env.coordinator_address(Cluster(kind="env", address="10.0.0.9")) == "10.0.0.9"


def test_a_node_that_mpirun_bound_to_a_part_of_its_cores_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = os.sched_getaffinity(0)
    bound = {min(own)}
    monkeypatch.setattr(env, "_node", None)
    monkeypatch.setattr(env, "cores_without_affinity", lambda: 1 + len(bound))
    os.sched_setaffinity(0, bound)
    try:
        env.enter(MPIRUN | SECRET)
        env.enter(TORCHRUN | SECRET)
    finally:
        os.sched_setaffinity(0, own)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: mpirun bound this process to 1 of 2 cores") and "--bind-to none" in line


def test_a_node_that_only_serves_reads_the_cluster_from_its_command_line() -> None:
    cluster = cluster_of(["-m", "cluster=env", "cluster.port=31000", "stage=0,1", "cluster.interface=eth1"])
    assert (cluster.kind, cluster.port, cluster.interface, cluster.address) == ("env", 31000, "eth1", None)
