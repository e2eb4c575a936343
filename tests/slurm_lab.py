"""Slurm on the emulated machines of ``tests.cluster_lab``: a controller on ctl, a compute node on each other.

    python -m tests.slurm_lab up [NODES]     the machines, munge and Slurm
    python -m tests.slurm_lab at CMD...      runs CMD on the login node (ctl)
    python -m tests.slurm_lab down           ends all

Needs Debian's slurm-wlm and munge, or their like.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from tests import cluster_lab
from tests.cluster_lab import ClusterLab

CONF = """ClusterName=lab
SlurmctldHost=ctl({controller})
SlurmUser=root
AuthInfo=socket=/run/lab-munge/socket,cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
SlurmdTimeout=30
SlurmdParameters=config_overrides
StateSaveLocation={place}/state
SlurmdSpoolDir={lab}/%n/spool
SlurmctldPidFile={place}/ctld.pid
SlurmdPidFile={lab}/%n/slurmd.pid
SlurmctldLogFile={place}/ctld.log
SlurmdLogFile={lab}/%n/slurmd.log
KillWait=10
"""
MUNGE = """mkdir -p /run/lab-munge && mount -t tmpfs none /run/lab-munge && chmod 755 /run/lab-munge
munged --force --key-file={place}/munge.key --socket=/run/lab-munge/socket --pid-file=/run/lab-munge/pid \\
  --log-file=/run/lab-munge/log --seed-file=/run/lab-munge/seed 2>/dev/null"""
READY_S = 60.0
CORES = 2


def obstacle() -> str | None:
    """Why Slurm cannot run here; None if it can."""
    missing = [tool for tool in ("slurmctld", "slurmd", "munged", "sbatch", "srun") if shutil.which(tool) is None]
    if missing:
        return f"the Slurm laboratory needs {', '.join(missing)} (apt-get install slurm-wlm munge)"
    return cluster_lab.obstacle()


class SlurmLab(ClusterLab):
    """Emulated machines with Slurm."""

    def up(self, nodes: int) -> None:
        super().up(nodes)
        place = self.place / "slurm"
        (place / "state").mkdir(parents=True)
        (place / "munge.key").write_bytes(os.urandom(1024))
        (place / "munge.key").chmod(0o400)
        names = [f"n{number}" for number in range(1, nodes + 1)]
        lines = [f"NodeName={name} NodeAddr={self.address(name)} CPUs={CORES} RealMemory=2000" for name in names]
        conf = CONF.format(controller=self.address("ctl"), place=place, lab=self.place)
        partition = "PartitionName=debug Nodes=ALL Default=YES OverSubscribe=YES:4\n"
        (place / "slurm.conf").write_text("\n".join([conf, *lines, partition]))
        for name in ("ctl", *names):
            self._run(name, "bash", "-ec", MUNGE.format(place=place))
        self._run("ctl", "slurmctld", "-i")
        for name in names:
            (self.temporary(name) / "spool").mkdir(exist_ok=True)
            self._run(name, "slurmd", "-N", name)
        deadline = time.monotonic() + READY_S
        while self.states() != {"idle"}:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Slurm did not start: {(place / 'ctld.log').read_text()[-1000:]}")
            time.sleep(0.2)

    def login(self, *words: str) -> list[str]:
        """A command that runs ``words`` on the login node."""
        return self.at("ctl", f"SLURM_CONF={self.place}/slurm/slurm.conf", *words)

    def states(self) -> set[str]:
        words = self.login("sinfo", "--noheader", "--Node", "--format=%t")
        return set(subprocess.run(words, capture_output=True, text=True, check=False).stdout.split())

    def _run(self, name: str, *words: str) -> None:
        inside = self.at(name, f"SLURM_CONF={self.place}/slurm/slurm.conf", *words)
        subprocess.run(inside, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    LAB = SlurmLab(cluster_lab.folder())
    cluster_lab.main(LAB, sys.argv[1:], str(__doc__), at=LAB.login, left=LAB.place / "slurm")
