"""Two emulated nodes that are reached over ssh: by ``cluster=ssh``, and by mpirun, which starts ``cluster=env``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.launch.cluster.commands import PROGRAM
from results.record import Record
from tests.ssh_lab import SshLab, obstacle
from tests.undisturbed import gone_within
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
why_not = obstacle()
pytestmark = [
    *(pytest.mark.exhaustive, pytest.mark.alone),
    pytest.mark.skipif(why_not is not None, reason=why_not or ""),
]
GONE_S = 10.0
"""Once a host is gone, every process of a launch is, unless the machine is busy."""
QUICK = ["gpus=4", "repeats=1", "steps=3", "measure.ceiling=false", "tracking=none"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SshLab]:
    with SshLab(tmp_path / "lab").running(2) as made:
        yield made


def on_first_node(lab: SshLab, *words: str) -> None:
    """Runs a command that must succeed."""
    done = subprocess.run(
        lab.at("n1", *words),
        cwd=ROOT,
        env=os.environ | {"BENCH_CLUSTER_SECRET": "0123456789abcdef0123456789abcdef"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def over_ssh(lab: SshLab, folder: Path) -> list[str]:
    return ["cluster=ssh", "cluster.hosts=[n1,n2]", f'cluster.ssh="{lab.client}"', f"hydra.sweep.dir={folder}"]


def check_records(folder: Path, count: int) -> None:
    records = [Record.read(path) for path in (folder / "records").glob("*.json")]
    assert len(records) == count
    for record in records:
        assert record.status == "ok" and record.parity and record.parity.passed
        assert [(host["name"], host["ranks"]) for host in record.resolved["hosts"]] == [("n1", 2), ("n2", 2)]


def test_a_sweep_over_ssh_leaves_nothing_on_its_hosts(lab: SshLab, tmp_path: Path) -> None:
    words = ["-m", "bench", "-m", "engine=native,torch", "stage=0", *QUICK, *over_ssh(lab, tmp_path / "out")]
    on_first_node(lab, sys.executable, *words)
    check_records(tmp_path / "out", 2)
    assert lab.processes("n1") == lab.processes("n2") == []


def host_server(lab: SshLab, name: str) -> psutil.Process:
    """As seen from outside the emulated nodes."""
    below = psutil.Process(lab.pid(name)).children(recursive=True)
    (server,) = [one for one in below if one.name().startswith("python") and PROGRAM in one.cmdline()]
    return server


def test_a_host_server_that_is_killed_is_started_again_over_ssh(lab: SshLab, tmp_path: Path) -> None:
    endless = ["measure=time", "steps=100000", "timeout_s=600", "cluster.health_check=false"]
    words = ["-m", "bench", "-m", "engine=torch", "stage=0,1", *QUICK, *endless, *over_ssh(lab, tmp_path / "out")]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            lab.at("n1", sys.executable, *words), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as sweep,
    ):

        def trains() -> bool:
            assert sweep.poll() is None, (tmp_path / "log").read_text()
            return bool(lab.ranks("n1") and lab.ranks("n2"))

        assert wait_until(trains, 300)
        host_server(lab, "n2").kill()
        took_s = gone_within(GONE_S, lambda: not lab.ranks("n1") and not lab.ranks("n2"))
        print(f"killed host server: all ranks are gone after {took_s:.1f} s")
        assert wait_until(trains, 300), "the second configuration runs on the host that was lost"
        lab.down()  # else the sweep would not end
    output = (tmp_path / "log").read_text()
    assert "n2: host lost: its host server ended" in output
    assert "n2: its host server ended; it is started again" in output


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs mpirun (apt-get install openmpi-bin)")
def test_mpirun_starts_a_sweep_and_every_node_exits_with_its_status(lab: SshLab, tmp_path: Path) -> None:
    words = ["mpirun", "--allow-run-as-root", "-n", "2", "-npernode", "1", "--host", "n1,n2"]
    words += ["--mca", "plm_rsh_agent", lab.client, "-x", "BENCH_CLUSTER_SECRET", sys.executable, "-m", "bench"]
    words += ["-m", "stage=3", *QUICK, "cluster=env", f"cluster.address={lab.address('n1')}"]
    on_first_node(lab, *words, f"hydra.sweep.dir={tmp_path / 'out'}")
    check_records(tmp_path / "out", 1)
