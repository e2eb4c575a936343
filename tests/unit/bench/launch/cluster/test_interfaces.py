"""The coordinator listens where other hosts reach it, and on no loopback address if there are any."""

from __future__ import annotations

import pytest

from bench.checks import ConfigError
from bench.launch.cluster import interfaces

OWN = {"own": "127.0.1.1", "a": "10.0.0.1", "b": "10.0.0.2"}
"""Own addresses by which names are reached; as on Debian, this machine's own name is a loopback address."""


@pytest.fixture(autouse=True)
def routes(monkeypatch: pytest.MonkeyPatch) -> None:
    def towards(name: str) -> str:
        if name not in OWN:
            raise ConfigError(f"{name} cannot be resolved")
        return OWN[name]

    monkeypatch.setattr(interfaces, "address_towards", towards)


def test_the_first_host_that_is_not_this_machine_decides() -> None:
    assert interfaces.own_address(["own", "a", "b"], 2) == "10.0.0.1"
    assert interfaces.own_address(["nowhere", "b"], 2) == "10.0.0.2"


def test_a_loopback_address_serves_this_machine_alone() -> None:
    assert interfaces.own_address(["own"], 1) == "127.0.1.1"
    with pytest.raises(
        ConfigError, match=r"127\.0\.1\.1 on this node, which no other node reaches; set cluster.address"
    ):
        interfaces.own_address(["own"], 2)
    with pytest.raises(ConfigError, match=r"localhost is .* on this node"):
        interfaces.reject_loopback("localhost")


def test_hosts_that_cannot_be_resolved_are_an_error() -> None:
    with pytest.raises(ConfigError, match="nowhere cannot be resolved"):
        interfaces.own_address(["nowhere"], 2)
