"""Starts the host servers of a cluster and the coordinator that they join."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping

from bench.checks import ConfigError
from bench.launch.cluster import env, ray_hosts, submission
from bench.launch.cluster import secret as secrets
from bench.launch.cluster.commands import command, over_ssh, srun
from bench.launch.cluster.interfaces import own_address
from bench.launch.cluster.launcher import NOT_RUN, ClusterLauncher
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
        this = env.node()
        members = Membership(env.coordinator_address(cluster), cluster.port, this.secret, modules, this.size)
        return started(members, this.secret, {0: command(env.coordinator_address(cluster), members.port, "0", cluster)})
    secret = secrets.new()
    if cluster.kind == "slurm":
        nodes = allocated_nodes(cluster)
        address = cluster.address or own_address(socket.gethostname())
        members = Membership(address, 0, secret, modules, nodes)
        words = srun(command(address, members.port, "SLURM_PROCID", cluster), nodes)
        return started(members, secret, {0: words}, shared=True)
    if cluster.kind == "ray":
        return ray_hosts.open_launcher(cluster, modules)
    assert cluster.hosts
    address = cluster.address or own_address(cluster.hosts[0])
    members = Membership(address, 0, secret, modules, len(cluster.hosts))
    commands = {
        index: over_ssh(host, command(address, members.port, str(index), cluster), cluster)
        for index, host in enumerate(cluster.hosts)
    }
    return started(members, secret, commands)


def started(
    members: Membership, secret: str, commands: Mapping[int, list[str]], *, shared: bool = False
) -> ClusterLauncher:
    """Runs the commands that start host servers, by host; ``shared``: one starts all. Raises ConfigError."""
    try:
        return ClusterLauncher(members, Commands(commands, secret, shared=shared))
    except ConfigError:
        members.close(NOT_RUN)
        raise


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
