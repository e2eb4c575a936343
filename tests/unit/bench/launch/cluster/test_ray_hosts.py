"""``cluster=ray`` uses the nodes that are alive, in the order of their addresses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from bench.checks import ConfigError
from bench.launch.cluster import ray_hosts
from bench.launch.cluster.ray_hosts import RayHosts, RayNode, bundle, chosen
from bench.launch.cluster.starter import Loss


def node(address: str, *, alive: bool = True, gpus: float = 0.0) -> dict[str, Any]:
    """As ``ray.nodes()`` describes one."""
    resources = {"CPU": 2.0} | ({"GPU": gpus} if gpus else {})
    return {"NodeManagerAddress": address, "Alive": alive, "Resources": resources}


NODES = [node("10.0.0.3", gpus=8.0), node("10.0.0.1", gpus=4.0), node("10.0.0.2", alive=False)]


def test_nodes_that_are_alive_are_used_with_all_their_gpus() -> None:
    assert chosen(NODES, None) == [RayNode("10.0.0.1", 4.0), RayNode("10.0.0.3", 8.0)]
    assert chosen(NODES, 1) == [RayNode("10.0.0.1", 4.0)]


def test_too_few_nodes_are_an_error_with_their_number() -> None:
    with pytest.raises(ConfigError, match="nodes=3: Ray has 2 nodes; valid: 1 to 2, null"):
        chosen(NODES, 3)


def test_a_bundle_can_be_placed_on_its_own_node_only() -> None:
    assert bundle(RayNode("10.0.0.1", 4.0)) == {"CPU": 1.0, "GPU": 4.0, "node:10.0.0.1": 0.001}
    assert bundle(RayNode("10.0.0.2", 0.0)) == {"CPU": 1.0, "node:10.0.0.2": 0.001}


LOST = Loss("its host server ended", 0.0, has_ended=True)


class Method:
    """A remote method of an actor: each call has a number, which stands for its result."""

    def __init__(self, calls: list[int]) -> None:
        self._calls = calls

    def remote(self, *_: object) -> int:
        self._calls.append(len(self._calls))
        return self._calls[-1]


class FakeRay:
    """Of one actor, whose calls of ``wait`` return once they are among ``ended``."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.waits: list[int] = []
        self.ended: set[int] = set()
        self.start, self.wait_method = Method(self.starts), Method(self.waits)

    def wait(self, references: list[int], **_: object) -> tuple[list[int], list[int]]:
        ready = [one for one in references if one in self.ended]
        return ready, [one for one in references if one not in ready]

    def get(self, reference: int) -> int:
        return 137


def test_a_host_server_that_has_ended_is_started_again_once_by_its_actor() -> None:
    ray = FakeRay()
    hosts = RayHosts(ray, [RayNode("10.0.0.1", 0.0)])
    hosts._words, hosts._secret = (lambda index: ["server", str(index)]), "shared"
    hosts._actors.append(SimpleNamespace(start=ray.start, wait=ray.wait_method))
    ray.get(hosts._start_of(0))
    hosts._ends.append(ray.wait_method.remote())
    assert hosts.failure(0) == "" and not hosts.restart(0, LOST)
    ray.ended = {0}
    assert hosts.failure(0) == "the host server on 10.0.0.1 exited with status 137"
    assert hosts.restart(0, LOST) and len(ray.starts) == 2
    assert hosts.failure(0) == ""
    ray.ended = {0, 1}
    assert not hosts.restart(0, LOST)


def test_what_a_node_lacks_is_an_error_with_its_address() -> None:
    class Failing(FakeRay):
        def get(self, reference: int) -> int:
            raise RuntimeError("ray::Starter.start()\n  Traceback ...\nModuleNotFoundError: No module named 'bench'")

        def remote(self, actor: object) -> SimpleNamespace:
            made = SimpleNamespace(start=self.start, wait=self.wait_method)
            return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: made))

        @property
        def util(self) -> SimpleNamespace:
            return SimpleNamespace(placement_group=lambda *_, **__: SimpleNamespace(wait=lambda seconds: True))

    hosts = RayHosts(Failing(), [RayNode("10.0.0.1", 0.0)])
    with (
        mock.patch.object(ray_hosts.importlib, "import_module", mock.Mock()),
        pytest.raises(
            ConfigError, match=r"on 10\.0\.0\.1 \(ModuleNotFoundError: No module named 'bench'\); every node"
        ),
    ):
        hosts.start(lambda index: ["server"], "shared")
