"""Passwords and tokens in addresses and variables: how they are recognized, and how a text is shown without them."""

from __future__ import annotations

import re
from collections.abc import Iterable

NAME = re.compile("TOKEN|SECRET|PASSW|PWD|CREDENTIAL|SIGNATURE|(^|_)KEY", re.IGNORECASE)
"""Names of variables and of parameters whose values are secret."""
HIDDEN = "***"
USER = re.compile(r"(?<=//)[^/@\s'\"]*@")
PARAMETER = re.compile(r"(?<=[?&;])([^=&?;\s]+)=([^&;\s#'\"]*)")


def without_secrets(text: str) -> str:
    """The text with no user, password or token in its addresses."""
    text = USER.sub(f"{HIDDEN}@", text)
    return PARAMETER.sub(lambda part: f"{part[1]}={HIDDEN}" if NAME.search(part[1]) else part[0], text)


def warning_of_visible(arguments: Iterable[str]) -> str:
    """One line for a command line with a user, password or token in an address; empty if there is none.

    Every user of a machine can read the arguments of a running process (``ps``).
    """
    for argument in arguments:
        if without_secrets(argument) != argument:
            name = argument.partition("=")[0] if "=" in argument.partition("://")[0] else "an address"
            return (
                f"warning: {name} on the command line contains a password or token, which all users of this machine "
                "can read (ps); instead set MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, in the environment, or write ~/.mlflow/credentials"
            )
    return ""
