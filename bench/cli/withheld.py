"""Passwords and tokens stay out of the files that Hydra writes: it is given the settings without them.

``Withhold`` is a callback in conf/config.yaml. It runs before Hydra writes its first file, and keeps in this process
what it takes out of addresses; ``restored`` puts that back into the settings of the sweep.
"""

from __future__ import annotations

import os
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import Container, DictConfig, ListConfig, open_dict, read_write

from results.secrets import HIDDEN, NAME, without_secrets

ENV_SET = "hydra.job.env_set"
_originals: dict[str, str] = {}
"""Text as it was given, by the same without secrets. Lives as long as the process."""


class Withhold(Callback):
    """Takes secrets out of what Hydra is about to write."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        withhold(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        withhold(config)


def withhold(config: DictConfig) -> None:
    """Replaces secrets in all text of ``config``, in place; variables that are secret are set at once."""
    variables = config.hydra.job.env_set
    with read_write(variables), open_dict(variables):
        for name in [str(name) for name in variables if NAME.search(str(name))]:
            os.environ[name] = str(variables.pop(name))
    _withhold(config)


def _withhold(node: Container) -> None:
    names: list[Any] = list(range(len(node))) if isinstance(node, ListConfig) else list(node)
    for name in names:
        below: Any = node._get_node(name)
        if isinstance(below, Container) and not (below._is_none() or below._is_missing() or below._is_interpolation()):
            _withhold(below)
        elif isinstance(raw := below._value(), str) and hidden(raw) != raw:
            text = str(node[name])  # with what it refers to
            _originals[hidden(text)] = text
            with read_write(node):
                node[name] = hidden(text)


def hidden(text: str) -> str:
    """A setting's value, or an override, without secrets."""
    name, equals, _ = text.partition("=")
    if equals and name.lstrip("+~").startswith(ENV_SET) and NAME.search(text):
        return f"{name}={HIDDEN}"
    return without_secrets(text)


def restored(value: Any) -> Any:
    """Settings with what was taken out of their text."""
    if isinstance(value, dict):
        return {name: restored(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [restored(entry) for entry in value]
    return _originals.get(value, value) if isinstance(value, str) else value
