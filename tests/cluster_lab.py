"""Emulated machines of a cluster: each has its own network, process ids, host name and temporary folder.

    python -m tests.cluster_lab up [NODES]      ctl and n1 .. nN, joined by a bridge in ctl's network namespace
    python -m tests.cluster_lab at HOST CMD...  runs CMD there
    python -m tests.cluster_lab die HOST        power off: kills all processes of the host
    python -m tests.cluster_lab down            ends all

State is in $CLUSTER_LAB, else below the temporary folder. Nothing is made in the machine's own network namespace;
no packet leaves the namespaces. Needs root and iproute2.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

SUBNET = "10.79.0"
INTERFACE = "eth0"
BORN_S = 10.0
INIT = """
hostname "$1"
mount --bind "$2/etc-hosts" /etc/hosts
: > "$2/$1.born"
trap : TERM INT
while :; do sleep 3600 & wait $!; done
"""
"""The first process of a host; it reaps what others leave."""


def folder() -> Path:
    return Path(os.environ.get("CLUSTER_LAB") or Path(tempfile.gettempdir(), "cluster-lab"))


def obstacle() -> str | None:
    """Why the laboratory cannot be made here; None if it can."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"the cluster laboratory needs {', '.join(missing)} (apt-get install iproute2 util-linux)"
    probe = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount", "true"], capture_output=True, check=False)
    return "the cluster laboratory needs root, to make namespaces" if probe.returncode else None


class ClusterLab:
    """Two or more hosts. Close it to end every process in them."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def up(self, nodes: int) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        names = ["ctl", *(f"n{number}" for number in range(1, nodes + 1))]
        lines = ["127.0.0.1 localhost", *(f"{self.address(name)} {name}" for name in names)]
        (self.place / "etc-hosts").write_text("\n".join(lines) + "\n")
        for name in names:
            self._boot(name)
        self._inside("ctl", "link set lo up", "link add br0 type bridge", "link set br0 up")
        self._inside("ctl", f"addr add {self.address('ctl')}/24 dev br0")
        for name in names[1:]:
            self.connect(name)

    @contextlib.contextmanager
    def running(self, nodes: int) -> Iterator[Self]:
        """Up within the block and gone after it, also if it does not come up."""
        try:
            self.up(nodes)
            yield self
        finally:
            self.down()

    def connect(self, name: str) -> None:
        """Gives a host its link to the bridge."""
        self._inside("ctl", f"link add to-{name} type veth peer name {INTERFACE} netns {self.pid(name)}")
        self._inside("ctl", f"link set to-{name} master br0 up")
        self._inside(name, "link set lo up", f"addr add {self.address(name)}/24 dev {INTERFACE}")
        self._inside(name, f"link set {INTERFACE} up")

    def cut(self, name: str) -> None:
        """Takes the cable of a host away, as seen from the others: nothing arrives, and no side gets an error."""
        self._inside("ctl", f"link set to-{name} nomaster")

    def mend(self, name: str) -> None:
        """Puts the cable of a host back."""
        self._inside("ctl", f"link set to-{name} master br0")

    def address(self, name: str) -> str:
        return f"{SUBNET}.{1 if name == 'ctl' else 10 + int(name[1:])}"

    def at(self, name: str, *words: str) -> list[str]:
        """A command that runs ``words`` on a host, in this folder."""
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", f"--wd={os.getcwd()}"]
        return [
            "nsenter",
            "--target",
            str(self.pid(name)),
            *namespaces,
            "env",
            f"TMPDIR={self.temporary(name)}",
            *words,
        ]

    def temporary(self, name: str) -> Path:
        place = self.place / name
        place.mkdir(exist_ok=True)
        return place

    def pid(self, name: str) -> int:
        return int((self.place / f"{name}.pid").read_text())

    def processes(self, name: str) -> list[str]:
        """Names and command lines of the processes of Python on a host."""
        words = self.at(
            name, "sh", "-c", "for p in /proc/[0-9]*; do echo $(cat $p/comm) $(tr '\\0' ' ' < $p/cmdline); done"
        )
        listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
        return [line for line in listed if "python" in line]

    def ranks(self, name: str) -> list[str]:
        """Those that are ranks."""
        return [line for line in self.processes(name) if line.startswith("bench rank")]

    def die(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid(name), signal.SIGKILL)

    def down(self) -> None:
        for path in self.place.glob("*.pid"):
            self.die(path.stem)
            path.unlink()
        for path in self.place.glob("*.born"):
            path.unlink()

    def _boot(self, name: str) -> None:
        (self.place / f"{name}.born").unlink(missing_ok=True)
        kinds = ["--mount", "--uts", "--ipc", "--pid", "--net", "--mount-proc", "--propagation", "private"]
        words = ["unshare", *kinds, "--fork", "--kill-child", "bash", "-c", INIT, "bash", name, str(self.place)]
        parent = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + BORN_S
        while not (self.place / f"{name}.born").exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"host {name} did not start")
            time.sleep(0.01)
        child = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()[0]
        (self.place / f"{name}.pid").write_text(child)

    def _inside(self, name: str, *commands: str) -> None:
        for command in commands:
            subprocess.run(["nsenter", "--target", str(self.pid(name)), "--net", "ip", *command.split()], check=True)


def main(
    lab: ClusterLab,
    arguments: list[str],
    about: str,
    *,
    at: Callable[..., list[str]] | None = None,
    left: Path | None = None,
) -> None:
    """The command line of a laboratory. ``at`` makes the command that runs others on a host; ``lab.at`` without it.

    ``up`` begins without the folder ``left`` by an earlier laboratory.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("up", "at", "die", "down"))
    parser.add_argument("words", nargs=argparse.REMAINDER)
    parsed = parser.parse_args(arguments)
    if parsed.command == "up":
        lab.down()
        if left:
            shutil.rmtree(left, ignore_errors=True)
        lab.up(int(parsed.words[0]) if parsed.words else 2)
    elif parsed.command == "at":
        words = (at or lab.at)(*parsed.words)
        os.execvp(words[0], words)
    elif parsed.command == "die":
        lab.die(parsed.words[0])
    elif parsed.command == "down":
        lab.down()
    else:
        print(about)


if __name__ == "__main__":
    main(ClusterLab(folder()), sys.argv[1:], str(__doc__))
