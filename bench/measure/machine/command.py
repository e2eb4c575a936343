"""The output of another program, or why there is none."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class CommandOutput:
    """The output of a program. One that is not installed has an ``error`` and ``is_missing``."""

    text: str = ""
    error: str = ""
    """Why there is no text: the program's own last line, or what the system said; empty if it ended well."""
    is_missing: bool = False


def output(command: list[str], timeout_s: float = 10) -> CommandOutput:
    name = command[0].rpartition("/")[2]
    if shutil.which(command[0]) is None:
        return CommandOutput(error=f"{name} is not installed", is_missing=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return CommandOutput(error=f"{name} did not answer in {timeout_s:g} s")
    except (OSError, subprocess.SubprocessError) as error:
        return CommandOutput(error=f"{name}: {without_folders(str(error))}")
    if done.returncode == 0:
        return CommandOutput(done.stdout)
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0] if lines else "no reason")
    return CommandOutput(error=f"{name}: {without_folders(reason)} (status {done.returncode})")


def without_folders(text: str) -> str:
    """``text`` with each path cut to its last part: records contain no folders of the user."""
    return re.sub(r"/(?:[^/:\s]+/)+", ".../", text)
