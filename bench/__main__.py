"""python -m bench: the Hydra entry, nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bench.cli import compose, errors, overrides
from bench.cli.flags import check_flags
from bench.cli.folder import unless_rejected
from bench.cli.main_sweep import for_this_machine
from bench.cli.one_process import check_alone
from bench.cli.signals import outlive_terminal
from bench.groups import CONF
from bench.launch.cluster import env
from bench.measure.machine import source
from bench.reproduce import request
from results.secrets import warning_of_visible
from results.version import version_line


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def single_run(composed: DictConfig) -> None:
    """A run without -m: a sweep of one cell, or a record's cell again."""
    from bench.reproduce.run import reproduce
    from bench.sweep import run

    folder = Path(HydraConfig.get().runtime.output_dir)
    with errors.one_line_errors(), unless_rejected(folder, multirun=False):
        config = compose.from_hydra(composed)
        if config.reproduce is None:
            code = run.run([config], folder)
        else:
            given = HydraConfig.get().overrides
            code = reproduce(config, [*given.hydra, *given.task], folder)
    if code:
        raise SystemExit(code)


def main() -> None:
    """The command ``python -m bench``, and ``ddp-zero-bench`` where the suite is installed."""
    os.environ[errors.FULL_ERROR] = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of printing them
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # as an installed command: a person's own modules, after the suite's
    outlive_terminal()
    arguments = sys.argv[1:]
    with errors.one_line_errors():
        if "--version" in arguments:
            print(version_line(source.collect(())))
            return
        check_flags(arguments)
        if visible := warning_of_visible(arguments):
            print(visible, file=sys.stderr)
        in_cluster = env.is_requested(arguments) and not compose.shows_only(arguments)
        node = env.enter() if in_cluster else None
        if node is None:
            check_alone("bench", arguments)
        compose.register(makes_folder=not compose.shows_only(arguments))
        if node and node.index:
            sys.argv[1:] = overrides.name_module(arguments)
            overrides.check_overrides(sys.argv[1:])
            overrides.check_mode(sys.argv[1:])
            raise SystemExit(env.serve(overrides.cluster_of(sys.argv[1:])))
        if get_args_parser().parse_args(arguments).shell_completion:  # its overrides are install= and query=
            single_run()
        else:
            sys.argv[1:] = overrides.name_module(for_this_machine(arguments))
            start(sys.argv[1:])


def start(arguments: list[str]) -> None:
    """Checks the overrides and hands over to Hydra, while the fork server warms up. Raises ConfigError."""
    overrides.check_overrides(arguments)
    overrides.check_mode(arguments)
    if request.is_reproduction(arguments):
        request.check_arguments(arguments)
        single_run()
    else:
        with compose.warming(arguments):
            single_run()


if __name__ == "__main__":
    main()
