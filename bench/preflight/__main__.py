"""``python -m bench.preflight``: whether this machine, or the hosts of a cluster, are fit to measure.

    python -m bench.preflight [--place FOLDER]
    python -m bench.preflight --gpus
    python -m bench.preflight cluster=slurm
    python -m bench.preflight cluster=ssh cluster.hosts=[a,b]

Exit code: 0 if they may measure, 1 if something would spoil the numbers or the run, 2 if the check could not begin.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from bench.checks import ConfigError, check_cluster
from bench.cli.errors import one_line_errors
from bench.cli.overrides import check_overrides, cluster_of
from bench.cli.signals import outlive_terminal
from bench.launch.cluster import env
from bench.launch.cluster.launcher import ClusterLauncher
from bench.launch.cluster.start import open_launcher
from bench.launch.launcher import LaunchError
from bench.measure.machine import nvml, source
from bench.preflight import hosts, machine, table
from bench.sweep.hosts import check_same_code
from results.host_settings import Cluster
from results.settings import Config
from terminal.output import prepare_output


def main() -> int:
    prepare_output()
    parser = argparse.ArgumentParser(prog="python -m bench.preflight", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--place", type=Path, default=Path("results/runs"), help="where results will be written")
    parser.add_argument("--gpus", action="store_true", help="print the number of GPUs and check nothing")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="cluster=...",
        help="the cluster to check, as for python -m bench; none: this machine",
    )
    arguments = parser.parse_args()
    if arguments.gpus:
        if unanswered := nvml.why_not():
            print(f"preflight: GPUs: {unanswered}", file=sys.stderr)
            return 1
        print(len(nvml.visible(nvml.states())))
        return 0
    with one_line_errors():
        cluster = cluster_in(arguments.settings)
        if cluster.kind != "local":
            return check_hosts(cluster)
    return 0 if machine.show(machine.preflight(arguments.place)) else 1


def cluster_in(settings: list[str]) -> Cluster:
    """The cluster of the command line. Raises ConfigError for any other setting."""
    for setting in settings:
        if not setting.startswith(("cluster=", "cluster.")):
            raise ConfigError(
                f"{setting} is not a setting of the preflight; valid: cluster=KIND, cluster.SETTING=VALUE"
            )
    check_overrides(settings)
    cluster = cluster_of(settings)
    check_cluster(Config(cluster=cluster))
    return cluster


def check_hosts(cluster: Cluster) -> int:
    """Checks the hosts of ``cluster`` and prints the result; the exit code. Raises ConfigError."""
    outlive_terminal()
    if cluster.kind == "env" and env.enter().index:
        return env.serve(cluster)
    try:
        with contextlib.closing(open_launcher(cluster, ())) as launcher:
            assert isinstance(launcher, ClusterLauncher)
            check_same_code(launcher.hosts, source.collect([]))
            health = hosts.check(launcher, cluster.leave_out_below)
            launcher.status = 0 if table.show(health) else 1
    except LaunchError as error:
        raise ConfigError(str(error)) from error
    return launcher.status


if __name__ == "__main__":
    sys.exit(main())
