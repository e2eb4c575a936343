"""A command that another launcher starts once for each rank says what to run instead."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.checks import ConfigError
from bench.cli.one_process import check_alone
from results.store import new_dated

ROOT = Path(__file__).resolve().parents[4]
MANY = (
    {"RANK": "0", "WORLD_SIZE": "4"},
    {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"},
    {"PMI_RANK": "0", "PMI_SIZE": "4"},
    {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"},
)
ONE: tuple[dict[str, str], ...] = (
    {},
    {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"},
    {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"},
    {"RANK": "0", "WORLD_SIZE": "1"},
    {"WORLD_SIZE": "4"},
)


@pytest.mark.parametrize("variables", MANY, ids=lambda variables: next(iter(variables)))
def test_one_of_several_processes_names_the_command_to_run_once(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"started as 4 processes .*: python -m bench stage=0,1 gpus=4$"):
        check_alone("bench", ["stage=0,1"], variables)


@pytest.mark.parametrize("variables", ONE, ids=str)
def test_a_shell_of_an_allocation_is_one_process(variables: dict[str, str]) -> None:
    check_alone("bench", ["stage=0"], variables)


def test_folders_that_are_made_in_one_second_are_different(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(new_dated, [tmp_path / "runs"] * 64))
    assert len(set(folders)) == 64 and all(folder.is_dir() for folder in folders)
