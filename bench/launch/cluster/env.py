"""``cluster=env``: the same command was started once on every node. Node 0 coordinates, the others serve.

Which node this is and how many there are stand in the variables of torchrun, mpirun, srun or Kubernetes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from bench.checks import ConfigError
from bench.launch.cluster import secret as secrets
from bench.measure.machine.limits import cores_without_affinity
from results.host_settings import Cluster

STARTERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ""),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),
    ("JOB_COMPLETION_INDEX", "WORLD_SIZE", ""),
)
"""Variables of this process's number, of how many there are, and of how many are on this node."""
BINDS = "OMPI_COMM_WORLD_RANK"
"""Set by Open MPI, which binds each process to a core, or to a socket, unless its command says otherwise."""
OF_STARTERS = ("OMPI_", "PMIX_", "PMI_", "MV2_", "TORCHELASTIC_", "ROLE_", "GROUP_")
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that ranks must not inherit: libraries take them for those of a rank."""


@dataclass(frozen=True)
class Node:
    """Which node this process is."""

    index: int
    size: int
    master: str | None
    """Address of node 0 as the starter gives it."""
    secret: str


_node: Node | None = None


def is_requested(arguments: Sequence[str]) -> bool:
    return "cluster=env" in arguments


def node() -> Node:
    """This node, as ``enter`` read it. Raises ConfigError if the command line did not say ``cluster=env``."""
    if _node is None:
        raise ConfigError("cluster=env must be given on the command line, on every node; it is no part of a file")
    return _node


def enter(variables: MutableMapping[str, str] = os.environ) -> Node:
    """Reads the starter's variables and removes them, with the secret. Raises ConfigError."""
    global _node
    index, size = place(variables)
    if BINDS in variables and (warning := warning_of_binding()):
        print(warning, file=sys.stderr)
    secret = variables.pop(secrets.VARIABLE, "").strip()  # it is sent to host servers as a line
    if len(secret) < secrets.MIN_CHARACTERS or not secret.isprintable():
        raise ConfigError(
            f"cluster=env needs the variable {secrets.VARIABLE} with the same secret on every node; valid: at least "
            f"{secrets.MIN_CHARACTERS} printable characters, such as the output of: openssl rand -hex 32"
        )
    _node = Node(index, size, variables.get("MASTER_ADDR"), secret)
    for name in [name for name in variables if name in NAMES or name.startswith(OF_STARTERS)]:
        del variables[name]
    return _node


def place(variables: Mapping[str, str]) -> tuple[int, int]:
    """Number of this node, and how many there are. Raises ConfigError."""
    for rank, size, local in STARTERS:
        number, count = variables.get(rank, ""), variables.get(size, "")
        if not (number.isdecimal() and count.isdecimal()):
            continue
        if variables.get(local, "1") != "1":
            raise ConfigError(
                f"cluster=env needs one process per node, but there are {local}={variables[local]} on this one; use "
                "torchrun --nproc-per-node=1, mpirun -npernode 1, or srun --ntasks-per-node=1"
            )
        return int(number), int(count)
    raise ConfigError(
        "cluster=env finds no number of this node in the environment; start the command with torchrun, mpirun, srun or "
        "a Kubernetes job, or set RANK and WORLD_SIZE (nodes, not GPUs) on each node"
    )


def warning_of_binding() -> str:
    """Where all ranks of this node would share a part of its cores; empty where they may use all."""
    own, all_cores = len(os.sched_getaffinity(0)), cores_without_affinity()
    if own >= all_cores:
        return ""
    return (
        f"warning: mpirun bound this process to {own} of {all_cores} cores, which all ranks of this node share; "
        "mpirun --bind-to none gives them all"
    )


def coordinator_address(cluster: Cluster) -> str:
    """Where node 0 listens. Raises ConfigError."""
    address = cluster.address or node().master
    if not address:
        raise ConfigError(
            "cluster=env needs cluster.address=ADDRESS, node 0's: MASTER_ADDR is not set by what started this command"
        )
    return address


def serve(cluster: Cluster) -> int:
    """Serves as a host, on every node but the first; the sweep's exit status."""
    from bench.launch.cluster.host_server import HostServer, leave_late

    this = node()
    leave_late()
    place = coordinator_address(cluster), cluster.port
    return HostServer(*place, this.index, this.secret, cluster.interface, begins_later=True).run()
