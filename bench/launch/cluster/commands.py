"""Commands that start a host server: on the host itself, over ssh, and by srun."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from bench.launch import interpreter
from results.host_settings import Cluster

PROGRAM = "bench.launch.cluster.host_server"


def command(address: str, port: int, index: str, cluster: Cluster) -> list[str]:
    """What runs on a host: the same interpreter, in the same folder."""
    interface = [cluster.interface] if cluster.interface else []
    return [*interpreter.runs(PROGRAM), address, str(port), index, *interface]


def over_ssh(host: str, words: list[str], cluster: Cluster) -> list[str]:
    inside = f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(words)}"
    return [*shlex.split(cluster.ssh), "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", host, inside]


def srun(words: list[str], nodes: Sequence[str] | int) -> list[str]:
    """``nodes``: names of nodes of the allocation, or how many of them."""
    count = nodes if isinstance(nodes, int) else len(nodes)
    named = [] if isinstance(nodes, int) else [f"--nodelist={','.join(nodes)}"]
    cores = os.environ.get("SLURM_CPUS_ON_NODE", "")
    of_node = [f"--cpus-per-task={cores}"] if cores.isdecimal() else []
    flags = [f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1", "--overlap", "--cpu-bind=none", "--mem=0"]
    stays = ["--kill-on-bad-exit=0", "--wait=0"]  # the other host servers do, when one ends
    return ["srun", *flags, *named, *of_node, *stays, *words]
