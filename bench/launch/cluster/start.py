"""Starts the host servers of a cluster and the coordinator that they join."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping

from bench.checks import ConfigError
from bench.launch.cluster import env, ray_hosts, submission
from bench.launch.cluster import secret as secrets
from bench.launch.cluster.commands import command, over_ssh, srun
from bench.launch.cluster.host_server import FIRST_S, NOT_RUN
from bench.launch.cluster.interfaces import is_this_machine, own_address, reject_loopback
from bench.launch.cluster.launcher import ClusterLauncher
from bench.launch.cluster.membership import Membership
from bench.launch.cluster.starter import Commands
from bench.launch.launcher import Launcher
from bench.launch.local import PRELOAD, launcher_for
from results.host_settings import Cluster


def open_launcher(cluster: Cluster, preload: tuple[str, ...]) -> Launcher:
    """The launcher of this machine or of the cluster. Raises ConfigError and LaunchError."""
    if cluster.kind == "local":
        return launcher_for(preload)
    modules = [*PRELOAD, *preload]
    if cluster.kind == "env":
        return on_every_node(cluster, modules)
    if cluster.kind == "slurm":
        return by_srun(cluster, modules)
    if cluster.kind == "ray":
        return ray_hosts.open_launcher(cluster, modules)
    return by_ssh(cluster, modules)


def on_every_node(cluster: Cluster, modules: list[str]) -> ClusterLauncher:
    """``cluster=env``: the other nodes serve, and a child process is the host of this one."""
    this, address = env.node(), env.coordinator_address(cluster)
    if this.size > 1 and not is_this_machine(cluster.address or ""):  # all nodes may be emulated on it
        reject_loopback(address)
    members = Membership(address, cluster.port, this.secret, modules, this.size, FIRST_S)
    return started(members, this.secret, {0: command(address, members.port, "0", cluster)})


def by_srun(cluster: Cluster, modules: list[str]) -> ClusterLauncher:
    """One ``srun`` starts the host servers of all nodes; another one starts one that has ended again."""
    count, secret = allocated_nodes(cluster), secrets.new()
    names = allocated_names()[:count]
    if len(names) < count:  # scontrol does not give them
        names = []
    address = cluster.address or own_address([*names, socket.gethostname()], count)
    members = Membership(address, 0, secret, modules, count)
    for_all = srun(command(address, members.port, "SLURM_PROCID", cluster), names or count)
    one_by_one = {
        index: srun(command(address, members.port, str(index), cluster), [name]) for index, name in enumerate(names)
    }
    return started(members, secret, one_by_one, for_all=for_all)


def by_ssh(cluster: Cluster, modules: list[str]) -> ClusterLauncher:
    assert cluster.hosts
    secret, count = secrets.new(), len(cluster.hosts)
    address = cluster.address or own_address([host.rpartition("@")[2] for host in cluster.hosts], count)
    members = Membership(address, 0, secret, modules, count)
    commands = {
        index: over_ssh(host, command(address, members.port, str(index), cluster), cluster)
        for index, host in enumerate(cluster.hosts)
    }
    return started(members, secret, commands)


def started(
    members: Membership, secret: str, commands: Mapping[int, list[str]], *, for_all: list[str] | None = None
) -> ClusterLauncher:
    """Runs the commands that start host servers (``Commands``). Raises ConfigError."""
    try:
        return ClusterLauncher(members, Commands(commands, secret, for_all=for_all))
    except ConfigError:
        members.close(NOT_RUN)
        raise


def allocated_names() -> list[str]:
    """Names of the nodes of the allocation in Slurm's order; none where scontrol does not give them."""
    words = ["scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", "")]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return done.stdout.split()


def allocated_nodes(cluster: Cluster, variables: Mapping[str, str] = os.environ) -> int:
    """Nodes of the allocation that this process is in, or as many of them as are set. Raises ConfigError."""
    allocated = variables.get(submission.INSIDE, "")
    if not allocated.isdecimal():
        raise ConfigError(
            f"cluster=slurm runs inside an allocation, and {submission.INSIDE} is not set; start it with salloc -N2, "
            "or in an sbatch script"
        )
    if shutil.which("srun") is None:
        raise ConfigError("cluster=slurm needs srun, which is not installed here")
    if cluster.nodes is not None and cluster.nodes > int(allocated):
        raise ConfigError(f"cluster.nodes={cluster.nodes} is more than the allocation has; valid: 1 to {allocated}")
    if submission.OWN_JOB not in variables:
        for name in ("partition", "time", "options"):
            if value := getattr(cluster, name):
                print(f"note: cluster.{name}={value} has no effect inside an allocation", file=sys.stderr)
    return cluster.nodes or int(allocated)
