"""ssh on the emulated machines of ``tests.cluster_lab``: an sshd on each node, and a key that opens all.

    python -m tests.ssh_lab up [NODES]
    python -m tests.ssh_lab at HOST CMD...   runs CMD there; ``ssh -F $CLUSTER_LAB/ssh/config n1`` logs in to n1
    python -m tests.ssh_lab down

Needs Debian's openssh-server, or its like.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests import cluster_lab
from tests.cluster_lab import ClusterLab

SERVER = "/usr/sbin/sshd"
SERVER_CONF = """HostKey {place}/host
AuthorizedKeysFile {place}/id.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
"""
CLIENT_CONF = """Host *
 IdentityFile {place}/id
 IdentitiesOnly yes
 StrictHostKeyChecking no
 UserKnownHostsFile /dev/null
 LogLevel ERROR
"""
SERVE = """mkdir -p /run/sshd && mount -t tmpfs none /run/sshd && chmod 755 /run/sshd
exec {server} -f {place}/sshd_config -E {place}/{name}.log"""
READY_S = 20.0


def obstacle() -> str | None:
    """Why ssh cannot run here; None if it can."""
    missing = [tool for tool in (SERVER, "ssh", "ssh-keygen") if shutil.which(tool) is None]
    if missing:
        return f"the ssh laboratory needs {', '.join(missing)} (apt-get install openssh-server openssh-client)"
    return cluster_lab.obstacle()


class SshLab(ClusterLab):
    """Emulated machines, each with an sshd."""

    @property
    def client(self) -> str:
        """The command that logs in to a node."""
        return f"ssh -F {self.folder / 'config'}"

    @property
    def folder(self) -> Path:
        return self.place / "ssh"

    def up(self, nodes: int) -> None:
        super().up(nodes)
        place = self.folder
        place.mkdir(mode=0o700)
        for name in ("id", "host"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        (place / "sshd_config").write_text(SERVER_CONF.format(place=place))
        (place / "config").write_text(CLIENT_CONF.format(place=place))
        for number in range(1, nodes + 1):
            name = f"n{number}"
            serve = SERVE.format(server=SERVER, place=place, name=name)
            subprocess.run(self.at(name, "bash", "-ec", serve), check=True, stdin=subprocess.DEVNULL)
            self._wait_for(name)

    def _wait_for(self, name: str) -> None:
        words = self.at("ctl", *self.client.split(), name, "true")
        deadline = time.monotonic() + READY_S
        while (done := subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"sshd did not start on {name}: {done.stderr.decode(errors='replace')}")
            time.sleep(0.1)


if __name__ == "__main__":
    LAB = SshLab(cluster_lab.folder())
    cluster_lab.main(LAB, sys.argv[1:], str(__doc__), left=LAB.folder)
