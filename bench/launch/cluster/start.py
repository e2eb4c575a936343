"""Starts the host servers of a cluster and the coordinator that they join."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Sequence

from bench.checks import ConfigError
from bench.launch import interpreter
from bench.launch.cluster import env
from bench.launch.cluster import secret as secrets
from bench.launch.cluster.launcher import ClusterLauncher
from bench.launch.cluster.membership import Membership
from bench.launch.launcher import Launcher
from bench.launch.local import PRELOAD, launcher_for
from results.host_settings import Cluster

LEAVE_S = 10.0
"""How long what started the host servers may take to end."""
PROGRAM = "bench.launch.cluster.host_server"
PROBE_PORT = 9
"""Nothing is sent there: connecting a datagram socket only looks up the route."""


def open_launcher(cluster: Cluster, preload: tuple[str, ...]) -> Launcher:
    """The launcher of this machine or of the cluster. Raises ConfigError and LaunchError."""
    if cluster.kind == "local":
        return launcher_for(preload)
    modules = [*PRELOAD, *preload]
    if cluster.kind == "env":
        this = env.node()
        members = Membership(env.coordinator_address(cluster), cluster.port, this.secret, modules, this.size)
        return started(members, this.secret, [command(env.coordinator_address(cluster), members.port, "0", cluster)])
    secret = secrets.new()
    if cluster.kind == "slurm":
        nodes = allocated_nodes()
        address = cluster.address or own_address(socket.gethostname())
        members = Membership(address, 0, secret, modules, nodes)
        return started(members, secret, [srun(command(address, members.port, "SLURM_PROCID", cluster), nodes)])
    assert cluster.hosts
    address = cluster.address or own_address(cluster.hosts[0])
    members = Membership(address, 0, secret, modules, len(cluster.hosts))
    words = [command(address, members.port, str(index), cluster) for index in range(len(cluster.hosts))]
    return started(members, secret, list(map(over_ssh, cluster.hosts, words, [cluster] * len(words))))


def started(members: Membership, secret: str, commands: Sequence[list[str]]) -> ClusterLauncher:
    """Runs the commands that start host servers; each reads the secret from its standard input."""
    processes: list[subprocess.Popen[bytes]] = []

    def end() -> None:
        for process in processes:
            try:
                process.wait(timeout=LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    launcher = ClusterLauncher(members, end)
    try:
        for words in commands:
            process = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
            processes.append(process)
            assert process.stdin
            with contextlib.suppress(OSError), process.stdin:
                process.stdin.write(f"{secret}\n".encode())
    except OSError as error:
        launcher.close()
        raise ConfigError(f"{commands[0][0]} cannot be run to start host servers ({error.strerror})") from error
    return launcher


def command(address: str, port: int, index: str, cluster: Cluster) -> list[str]:
    """What runs on a host: the same interpreter, in the same folder."""
    interface = [cluster.interface] if cluster.interface else []
    return [*interpreter.runs(PROGRAM), address, str(port), index, *interface]


def over_ssh(host: str, words: list[str], cluster: Cluster) -> list[str]:
    inside = f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(words)}"
    return [*shlex.split(cluster.ssh), "-o", "BatchMode=yes", host, inside]


def srun(words: list[str], nodes: int) -> list[str]:
    cores = os.environ.get("SLURM_CPUS_ON_NODE", "")
    of_node = [f"--cpus-per-task={cores}"] if cores.isdecimal() else []
    flags = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--overlap", "--cpu-bind=none", "--mem=0"]
    return ["srun", *flags, *of_node, "--kill-on-bad-exit=0", *words]


def allocated_nodes() -> int:
    """Nodes of the allocation that this process is in. Raises ConfigError."""
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "")
    if not nodes.isdecimal():
        raise ConfigError(
            "cluster=slurm runs inside an allocation, and SLURM_JOB_NUM_NODES is not set; start it with salloc -N2, or "
            "in an sbatch script. Submitting a job from a login node is not supported"
        )
    if shutil.which("srun") is None:
        raise ConfigError("cluster=slurm needs srun, which is not installed here")
    return int(nodes)


def own_address(towards: str) -> str:
    """The address of this machine by which ``towards`` is reached. Raises ConfigError."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(towards, PROBE_PORT, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)
            address: str = probe.getsockname()[0]
    except OSError as error:
        raise ConfigError(
            f"{towards} cannot be resolved or reached ({error.strerror}); set cluster.address to an address of this "
            "node that all hosts reach"
        ) from error
    return address
