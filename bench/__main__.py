"""python -m bench: the Hydra entry, nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bench import cli, reproduce
from bench.groups import CONF
from bench.hangup import outlive_terminal
from bench.one_process import check_alone
from bench.store import unless_refused


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def single_run(composed: DictConfig) -> None:
    """A run without -m: a sweep of one cell, or a record's cell again."""
    from bench import sweep

    folder = Path(HydraConfig.get().runtime.output_dir)
    with cli.one_line_errors(), unless_refused(folder, multirun=False):
        config = cli.from_hydra(composed)
        if config.reproduce is None:
            code = sweep.run([config], folder)
        else:
            code = reproduce.run(
                config, [*HydraConfig.get().overrides.hydra, *HydraConfig.get().overrides.task], folder
            )
    if code:
        raise SystemExit(code)


def main() -> None:
    os.environ[cli.FULL_ERROR] = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of printing them
    outlive_terminal()
    with cli.one_line_errors():
        check_alone("bench", sys.argv[1:])
        cli.register(makes_folder=not cli.shows_only(sys.argv[1:]))
        sys.argv[1:] = cli.name_module(sys.argv[1:])
        cli.check_overrides(sys.argv[1:])
        cli.check_mode(sys.argv[1:])
        if reproduce.asked(sys.argv[1:]):
            reproduce.check_arguments(sys.argv[1:])
            single_run()
        else:
            with cli.warming(sys.argv[1:]):
                single_run()


if __name__ == "__main__":
    main()
