"""``cluster=ray``: an actor on each node of a Ray cluster starts a host server there.

A placement group with one bundle per node reserves a CPU and all GPUs of each node for the sweep. Each bundle is tied
to its node by the resource ``node:ADDRESS``, which every Ray node has: else Ray would choose the order of the nodes.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.checks import ConfigError
from bench.launch.cluster import secret as secrets
from bench.launch.cluster.commands import command
from bench.launch.cluster.interfaces import own_address
from bench.launch.cluster.launcher import ClusterLauncher
from bench.launch.cluster.membership import Membership
from bench.launch.cluster.starter import Loss
from results.host_settings import Cluster
from results.shown import printable

PLACE_S = 60.0
"""How long the cluster may take to reserve a place on each node."""
LEAVE_S = 10.0
PINNED = 0.001
"""Of the one unit of ``node:ADDRESS`` that a Ray node has."""


@dataclass(frozen=True)
class RayNode:
    """A node that is alive."""

    address: str
    gpus: float


def open_launcher(cluster: Cluster, preload: list[str]) -> ClusterLauncher:
    """Connects to the Ray cluster and starts a host server on each of its nodes. Raises ConfigError."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError("cluster=ray needs ray; install the extra: ddp-zero-bench[ray]") from error
    try:
        ray.init(address=cluster.ray, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"no Ray cluster is reached at cluster.ray={cluster.ray} ({str(error).splitlines()[0]}); valid: auto, "
            "HOST:PORT of its head, or ray://HOST:10001"
        ) from error
    nodes = chosen(ray.nodes(), cluster.nodes)
    secret = secrets.new()
    address = cluster.address or own_address([node.address for node in nodes], len(nodes))
    members = Membership(address, 0, secret, preload, len(nodes))
    hosts = RayHosts(ray, nodes)
    launcher = ClusterLauncher(members, hosts)
    try:
        hosts.start(lambda index: command(address, members.port, str(index), cluster), secret)
    except ConfigError:
        launcher.close()
        raise
    return launcher


def chosen(described: list[dict[str, Any]], wanted: int | None) -> list[RayNode]:
    """As many nodes as are wanted, or all that are alive, ordered by address. Raises ConfigError for too few."""
    alive = [
        RayNode(str(node["NodeManagerAddress"]), float(node.get("Resources", {}).get("GPU", 0)))
        for node in described
        if node.get("Alive")
    ]
    if not alive or (wanted or 0) > len(alive):
        raise ConfigError(f"cluster.nodes={wanted}: Ray has {len(alive)} nodes; valid: 1 to {len(alive)}, null")
    return sorted(alive, key=lambda node: node.address)[:wanted]


def bundle(node: RayNode) -> dict[str, float]:
    """The resources that a sweep reserves on a node."""
    return {"CPU": 1.0, f"node:{node.address}": PINNED} | ({"GPU": node.gpus} if node.gpus else {})


class Starter:
    """The actor: it runs on a node and starts the host server there."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, words: list[str], secret: str, folder: str) -> None:
        """Runs ``words`` in ``folder``; the secret goes to standard input."""
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, cwd=folder, start_new_session=True)
        assert self._process.stdin
        with contextlib.suppress(OSError), self._process.stdin:
            self._process.stdin.write(f"{secret}\n".encode())

    def wait(self) -> int:
        """The exit status of the host server."""
        assert self._process
        return self._process.wait()


class RayHosts:
    """The actors of a sweep and their place in the cluster."""

    def __init__(self, ray: Any, nodes: list[RayNode]) -> None:
        self._ray, self._nodes = ray, nodes
        self._actors: list[Any] = []
        self._ends: list[Any] = []
        """Exit statuses of the host servers, once they have ended."""
        self._group: Any = None
        self._restarted: set[int] = set()

    def start(self, words: Callable[[int], list[str]], secret: str) -> None:
        """Starts a host server on each node; ``words`` is the command by the host's index. Raises ConfigError."""
        self._words, self._secret = words, secret
        strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
        bundles = [bundle(node) for node in self._nodes]
        self._group = self._ray.util.placement_group(bundles, strategy="STRICT_SPREAD")
        if not self._group.wait(PLACE_S):
            raise ConfigError(
                f"the Ray cluster has no free CPU and GPUs on each of {len(bundles)} nodes; see ray status, or set "
                "cluster.nodes"
            )
        remote = self._ray.remote(Starter)
        for index, node in enumerate(self._nodes):
            place = strategies.PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=index)
            options = remote.options(num_cpus=1, num_gpus=node.gpus, scheduling_strategy=place)
            self._actors.append(options.remote())
        starts = [self._start_of(index) for index in range(len(self._nodes))]  # on all nodes at the same time
        for node, actor, begun in zip(self._nodes, self._actors, starts, strict=True):
            try:
                self._ray.get(begun)
            except Exception as error:  # Ray's own, around that of the node
                raise ConfigError(
                    f"no host server could be started on {node.address} ({lines_of(error)[-1]}); every node needs this "
                    "folder and the same Python environment"
                ) from error
            self._ends.append(actor.wait.remote())

    def _start_of(self, index: int) -> Any:
        """The call that starts a host server by its actor."""
        return self._actors[index].start.remote(self._words(index), self._secret, os.getcwd())

    def failure(self, index: int) -> str:
        """How the host server on this node ended; empty while it runs."""
        if not self._has_ended(index):
            return ""
        node = self._nodes[index].address
        try:
            return f"the host server on {node} exited with status {self._ray.get(self._ends[index])}"
        except Exception as error:  # Ray's own
            return f"the actor on {node} ended: {lines_of(error)[0]}"

    def _has_ended(self, index: int) -> bool:
        return bool(self._ray.wait([self._ends[index]], num_returns=1, timeout=0)[0])

    def restart(self, index: int, loss: Loss) -> bool:
        """Starts the host server on this node again if it has ended and the node has not, at most once."""
        if index in self._restarted or not self._has_ended(index):
            return False
        self._restarted.add(index)
        try:
            self._ray.get(self._start_of(index))
            self._ends[index] = self._actors[index].wait.remote()
        except Exception:  # Ray's own: the actor ended with its node
            return False
        return True

    def end(self) -> None:
        """Waits for the host servers that were sent away, and gives the nodes back."""
        with contextlib.suppress(Exception):  # a node that is gone
            self._ray.wait(self._ends, num_returns=len(self._ends), timeout=LEAVE_S)
        for actor in self._actors:
            self._ray.kill(actor)
        if self._group is not None:
            self._ray.util.remove_placement_group(self._group)
        self._ray.shutdown()


def lines_of(error: Exception) -> list[str]:
    """Of the text of an error of Ray's, which ends with that of the node, after its traceback."""
    return [printable(line) for line in (str(error).strip() or type(error).__name__).splitlines()]
