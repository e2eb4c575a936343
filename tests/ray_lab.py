"""Ray on the emulated machines of ``tests.cluster_lab``: the head on n1, a worker on each other node.

python -m tests.ray_lab up [NODES]
python -m tests.ray_lab at HOST CMD...   runs CMD there; cluster.ray=auto finds Ray on n1
python -m tests.ray_lab down
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from tests import cluster_lab
from tests.cluster_lab import ClusterLab

PORT = 6379
CLIENT_PORT = 10001
MEMORY_BYTES = 100_000_000
"""Of Ray's object store on each node."""
START_S = 240
"""How long a node may take to start on a busy machine."""
VARIABLES = ("RAY_USAGE_STATS_ENABLED=0", "RAY_AUTH_MODE=disabled")
"""Nobody else reaches this cluster; a token of this user would be required on its head alone."""
OPTIONS = ["--num-cpus=2", "--disable-usage-stats", f"--object-store-memory={MEMORY_BYTES}"]


def obstacle() -> str | None:
    """Why Ray cannot run here; None if it can."""
    if importlib.util.find_spec("ray") is None:
        return "the Ray laboratory needs ray (pip install ray)"
    if importlib.util.find_spec("grpc") is None:
        return "the Ray laboratory needs Ray's client (pip install 'ray[client]')"
    return cluster_lab.obstacle()


class RayLab(ClusterLab):
    """Emulated machines with Ray."""

    def up(self, nodes: int) -> None:
        super().up(nodes)
        python = [sys.executable, "-m", "ray.scripts.scripts", "start"]
        for number in range(1, nodes + 1):
            name = f"n{number}"
            role = [
                "--head",
                f"--port={PORT}",
                f"--ray-client-server-port={CLIENT_PORT}",
                "--include-dashboard=false",
                f"--temp-dir={self.place}/ray",
            ]
            if number > 1:
                role = [f"--address={self.address('n1')}:{PORT}"]
            words = [*role, f"--node-ip-address={self.address(name)}", *OPTIONS]
            started = subprocess.run(
                self.at(name, f"RAY_raylet_start_wait_time_s={START_S}", *python, *words),
                capture_output=True,
                text=True,
                check=False,
            )
            if started.returncode:
                raise RuntimeError(f"Ray did not start on {name}: {started.stdout[-800:]}{started.stderr[-800:]}")

    def at(self, name: str, *words: str) -> list[str]:
        return super().at(name, *VARIABLES, *words)

    def client_address(self) -> str:
        """Where a machine that is no node of the cluster reaches it."""
        return f"ray://{self.address('n1')}:{CLIENT_PORT}"


if __name__ == "__main__":
    LAB = RayLab(cluster_lab.folder())
    cluster_lab.main(LAB, sys.argv[1:], str(__doc__))
