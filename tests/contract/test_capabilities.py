"""``python -m bench.engines``: every yes is checked by a real run, and every no says why."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from bench.engines.__main__ import SupportAnswer, declared
from bench.groups import options
from bench.launch.launcher import Launcher
from tests.conftest import WRAPPERS, MakeCell

ANSWERS = list(declared(2, "gloo")) + [answer for answer in declared(4, "gloo") if answer.setting == "shard_size"]
WITH_PARITY = ("stage", "precision", "optimizer")
"""Settings whose every yes tests/contract/test_engines.py runs, and compares with a single process (test_muon and
test_adam8bit run these optimizers)..."""
ELSEWHERE = (
    "compile",
    "checkpointing",
    "checkpointing_budget",
    "weight_decay",
    "lr_schedule",
    "offload",
    "quantize",
    "secondary_shard_size",
)
"""Settings whose launches are in a test of their own. With checkpointing_budget there is no launch: test_compiled
compiles with it in one process of native, and the unit test of bench.engines.compiler checks torch's option."""
OF_SOME_MODULES = ("tensor_parallel", "pipeline")
"""... on a model that these engines reject."""
TINY = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 2, "width": 8}


def words(answer: SupportAnswer) -> str:
    return f"{answer.engine}-{answer.stage}-{answer.setting}={answer.value}"


def is_run_here(answer: SupportAnswer) -> bool:
    if answer.setting in ELSEWHERE:
        return False
    return answer.answer == "yes" and (answer.setting not in WITH_PARITY or answer.engine in OF_SOME_MODULES)


def is_run_often(answer: SupportAnswer) -> bool:
    return answer.stage in (0, 3) and answer.engine not in WRAPPERS


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(answer, id=words(answer), marks=() if is_run_often(answer) else pytest.mark.exhaustive)
        for answer in filter(is_run_here, ANSWERS)
    ],
)
def test_every_yes_is_a_run(
    answer: SupportAnswer, make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    settings: dict[str, Any] = {"stage": answer.stage}
    settings |= {"data_skew": "samples"} if answer.setting == "join" else {answer.setting: answer.value}
    gpus = 4 if answer.setting == "shard_size" else 2
    cell = make_cell(engine=answer.engine, gpus=gpus, workload=TINY, batch_size=4, **settings)
    assert cell.status is None, cell.reason
    result = launcher.launch(timing_job(cell, steps=2, warmup=0, timeout_s=120.0))
    assert result.status == "ok", f"{result.reason}\n{result.ends}"


def test_every_no_names_the_engine_and_the_setting() -> None:
    rejected = [answer for answer in ANSWERS if answer.answer == "unsupported"]
    assert rejected
    for answer in rejected:
        assert f"engine={answer.engine}" in answer.reason
        assert f"{answer.setting}=" in answer.reason or f"no {answer.setting}" in answer.reason, answer


def test_the_matrix_can_be_piped() -> None:
    command = [sys.executable, "-m", "bench.engines", "native", "--json"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {json.loads(line)["answer"] for line in lines} <= {"yes", "unsupported", "unavailable"}
    unknown = subprocess.run([*command[:-2], "nope"], capture_output=True, text=True, check=False)
    assert (unknown.returncode, ", ".join(options("engine")) in unknown.stderr) == (2, True)
