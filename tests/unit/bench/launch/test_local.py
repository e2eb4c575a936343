"""How long a launch may take until its fork server is given up."""

from __future__ import annotations

from bench.launch import local, orphans
from bench.launch.forkserver import launch, templates


def test_a_launcher_waits_for_longer_than_a_fork_server_may_take() -> None:
    own_limits = (templates.ANSWER_S, templates.STACKS_S, launch.GRACE_S, launch.STACKS_S, orphans.WITHIN_S)
    assert 2 * sum(own_limits) <= local.SLACK_S
