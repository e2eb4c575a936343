"""One srun starts all host servers of an allocation; each can be started again by one of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.checks import ConfigError
from bench.launch.cluster import env, interfaces, start
from results.host_settings import Cluster


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What would be run in an allocation of nodes with these names."""

    def of(names: list[str], **settings: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def started(members: Any, secret: str, commands: Any, *, for_all: list[str]) -> None:
            members.close(0)
            seen.update(secret=secret, commands=commands, for_all=for_all)

        monkeypatch.setattr(start, "allocated_names", lambda: names)
        monkeypatch.setattr(start.shutil, "which", lambda name: name)
        monkeypatch.setattr(start, "started", started)
        monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
        start.by_srun(Cluster(kind="slurm", address="127.0.0.1", **settings), [])
        return seen

    return of


def test_the_nodes_of_an_allocation_share_a_command_and_each_has_one(commands: Callable[..., dict[str, Any]]) -> None:
    seen = commands(["a", "b", "c"], nodes=2)
    assert {"--nodes=2", "--nodelist=a,b"} < set(seen["for_all"]) and seen["for_all"][-1] == "SLURM_PROCID"
    assert {index: words[-1] for index, words in seen["commands"].items()} == {0: "0", 1: "1"}
    assert {"--nodes=1", "--ntasks=1", "--nodelist=b"} < set(seen["commands"][1])
    assert seen["secret"] not in str([seen["commands"], seen["for_all"]])


def test_without_names_of_nodes_slurm_chooses_and_none_is_started_again(
    commands: Callable[..., dict[str, Any]],
) -> None:
    seen = commands([])
    assert "--nodes=3" in seen["for_all"] and "--nodelist" not in str(seen["for_all"]) and seen["commands"] == {}


def test_all_nodes_may_be_on_this_machine_if_the_address_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(members: Any, secret: str, commands: Any) -> str:
        members.close(0)
        return "started"

    def resolved(name: str, *_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", ("127.0.1.1" if name == "n1" else name, 0))]

    monkeypatch.setattr(env, "_node", env.Node(0, 2, "127.0.0.1", "s" * 32))
    monkeypatch.setattr(start, "started", started)
    assert start.on_every_node(Cluster(kind="env", address="127.0.0.1", port=0), []) == "started"
    monkeypatch.setattr(interfaces.socket, "getaddrinfo", resolved)
    for address in (None, "n1"):
        with pytest.raises(ConfigError, match=r"no other node reaches; .* or to 127\.0\.0\.1 if all are on this one"):
            start.on_every_node(Cluster(kind="env", address=address, port=0), [])
