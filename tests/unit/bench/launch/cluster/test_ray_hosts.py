"""``cluster=ray`` uses the nodes that are alive, in the order of their addresses."""

from __future__ import annotations

from typing import Any

import pytest

from bench.checks import ConfigError
from bench.launch.cluster.ray_hosts import RayNode, bundle, chosen


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
