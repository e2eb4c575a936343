"""The ranks of a launch as Fabric's cluster environment: processes and their group are there already."""

from __future__ import annotations

from lightning_fabric.plugins.environments import ClusterEnvironment

from bench.engines.base import RankContext


class LaunchEnvironment(ClusterEnvironment):  # type: ignore[misc]
    """Fabric asks it where a rank is, and then takes the default process group."""

    def __init__(self, context: RankContext) -> None:
        super().__init__()
        self._context = context

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise NotImplementedError("the process group is initialised: no address is needed")

    @property
    def main_port(self) -> int:
        raise NotImplementedError("the process group is initialised: no port is needed")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._context.world_size

    def set_world_size(self, size: int) -> None:
        """Nothing: the launch has set it."""

    def global_rank(self) -> int:
        return self._context.rank

    def set_global_rank(self, rank: int) -> None:
        """Nothing: the launch has set it."""

    def local_rank(self) -> int:
        return self._context.placement.local_rank

    def node_rank(self) -> int:
        return self._context.placement.host
