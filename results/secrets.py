"""Passwords and tokens in addresses and variables: how they are recognized, and how a text is shown without them."""

from __future__ import annotations

import re

NAME = re.compile("TOKEN|SECRET|PASSW|PWD|CREDENTIAL|SIGNATURE|(^|_)KEY", re.IGNORECASE)
"""Names of variables and of parameters whose values are secret."""
HIDDEN = "***"
USER = re.compile(r"(?<=//)[^/@\s'\"]*@")
PARAMETER = re.compile(r"(?<=[?&;])([^=&?;\s]+)=([^&;\s#'\"]*)")


def without_secrets(text: str) -> str:
    """The text with no user, password or token in its addresses."""
    text = USER.sub(f"{HIDDEN}@", text)
    return PARAMETER.sub(lambda part: f"{part[1]}={HIDDEN}" if NAME.search(part[1]) else part[0], text)
