"""python -m bench: the Hydra entry, nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bench.cli import compose, errors, overrides
from bench.cli.folder import unless_refused
from bench.cli.one_process import check_alone
from bench.cli.signals import outlive_terminal
from bench.groups import CONF
from bench.launch.cluster import env
from bench.reproduce import request


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def single_run(composed: DictConfig) -> None:
    """A run without -m: a sweep of one cell, or a record's cell again."""
    from bench.reproduce.run import reproduce
    from bench.sweep import run

    folder = Path(HydraConfig.get().runtime.output_dir)
    with errors.one_line_errors(), unless_refused(folder, multirun=False):
        config = compose.from_hydra(composed)
        if config.reproduce is None:
            code = run.run([config], folder)
        else:
            given = HydraConfig.get().overrides
            code = reproduce(config, [*given.hydra, *given.task], folder)
    if code:
        raise SystemExit(code)


def main() -> None:
    os.environ[errors.FULL_ERROR] = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of printing them
    outlive_terminal()
    with errors.one_line_errors():
        in_cluster = env.is_requested(sys.argv[1:]) and not compose.shows_only(sys.argv[1:])
        node = env.enter() if in_cluster else None
        if node is None:
            check_alone("bench", sys.argv[1:])
        compose.register(makes_folder=not compose.shows_only(sys.argv[1:]))
        sys.argv[1:] = overrides.name_module(sys.argv[1:])
        overrides.check_overrides(sys.argv[1:])
        overrides.check_mode(sys.argv[1:])
        if node and node.index:
            raise SystemExit(env.serve(overrides.cluster_of(sys.argv[1:])))
        if request.is_reproduction(sys.argv[1:]):
            request.check_arguments(sys.argv[1:])
            single_run()
        else:
            with compose.warming(sys.argv[1:]):
                single_run()


if __name__ == "__main__":
    main()
