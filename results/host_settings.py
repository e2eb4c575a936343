"""Settings of hosts: where ranks run, and the network between them; parts of ``settings.Config``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from results.declare import setting
from results.quantities import bits_per_s, delay_s, slurm_minutes


@dataclass
class Network:
    """The network between ranks (conf/network/)."""

    kind: str = setting(
        "none",
        "lab: emulate one host per rank, each a network namespace behind a link of known bandwidth and latency (Linux, "
        "root; gloo only). none: this machine as it is",
        "none",
        "lab",
    )
    rate: str | None = setting(
        None,
        "bandwidth per emulated host, per direction. null: not limited",
        form=(bits_per_s, "a rate from 8kbit to 100gbit, such as 100mbit"),
    )
    delay: str | None = setting(
        None,
        "added one-way latency between any two emulated hosts. null: none",
        form=(delay_s, "a time from 10us to 10s, such as 1ms"),
    )
    hosts: int | None = setting(
        None,
        "emulated hosts that ranks are placed on, in order; ranks on one host communicate without its link. "
        "null: one per rank",
        min=1,
    )


@dataclass
class Cluster:
    """The hosts that ranks run on (conf/cluster/)."""

    kind: str = setting(
        "local",
        "local: this machine. env: the same command was started once on every node (torchrun, mpirun, Kubernetes). "
        "ssh: hosts are started over ssh. slurm: inside an allocation, srun starts one host per node; elsewhere, one "
        "job for the whole sweep is submitted. ray: an actor on each node of a Ray cluster starts its host",
        *("local", "env", "ssh", "slurm", "ray"),
        role="sweep",
    )
    hosts: list[str] | None = setting(
        None, "cluster=ssh: names or addresses of the hosts, such as [a,b]. null: none", role="sweep"
    )
    ranks_per_host: int | None = setting(
        None,
        "ranks on each host, block by block. null: ranks that fit one host (one per GPU, or per core and thread) stay "
        "on it, more fill one host after the other",
        min=1,
        optional=False,
    )
    nodes: int | None = setting(
        None,
        "cluster=slurm: nodes of the job that is submitted; null: those of the allocation. cluster=ray: nodes that are "
        "used; null: all",
        min=1,
        role="sweep",
    )
    partition: str | None = setting(
        None, "cluster=slurm: partition of the job that is submitted. null: Slurm's default", role="sweep"
    )
    time: str | None = setting(
        None,
        "cluster=slurm: time limit of the job that is submitted. null: one hour",
        form=(slurm_minutes, "minutes, H:MM:SS or D-HH:MM:SS, such as 1:30:00"),
        role="sweep",
    )
    options: dict[str, Any] = setting(
        {},
        "cluster=slurm: other flags of sbatch for the job that is submitted, such as {qos: high, gpus-per-node: 8}; "
        "whole nodes (exclusive) unless exclusive: false",
        role="sweep",
    )
    interface: str | None = setting(
        None,
        "network interface of every host for collectives between hosts. null: the one that reaches the coordinator",
        role="sweep",
    )
    address: str | None = setting(
        None,
        "address of the coordinator that all hosts can reach. null: MASTER_ADDR (cluster=env), else the one that "
        "reaches the first host",
        role="sweep",
    )
    port: int = setting(
        29650, "TCP port of the coordinator; used by cluster=env only", min=1024, max=65535, role="sweep"
    )
    health_check: bool = setting(
        True,
        "measure the hosts and the links between them before the sweep: versions, clocks, GPUs in use, peak FLOP/s, "
        "bandwidth and latency between each two hosts, free disk and shared memory",
        role="sweep",
    )
    leave_out_below: float | None = setting(
        None,
        "leave out hosts whose peak FLOP/s or best link is below this share of the median of the other hosts, such as "
        "0.5. null: slow hosts are named and used",
        above=0,
        max=1,
        role="sweep",
    )
    ray: str = setting(
        "auto",
        "cluster=ray: address of the Ray cluster: auto (this machine is a node of it), HOST:PORT of its head, or "
        "ray://HOST:10001 from elsewhere",
        role="sweep",
    )
    ssh: str = setting("ssh", "cluster=ssh: the command that runs a command on a host, with its options", role="sweep")
