"""Data flows conf -> bench -> results -> analysis, and files stay small: each rule holds, and fails on a violation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.architecture import rules

ROOT = Path(__file__).resolve().parents[2]
LATE = "def f():\n    {}\n"
FOR_TYPES = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    {}\n"
VIOLATIONS: dict[Callable[[Path], list[str]], list[dict[str, str]]] = {
    rules.results_need_the_standard_library_alone: [
        {"results/read.py": "import pandas"},
        {"results/read.py": LATE.format("from bench import job")},
        {"results/read.py": LATE.format("import mlflow")},
        {"results/read.py": FOR_TYPES.format("from analysis.table import frame")},
    ],
    rules.analysis_never_imports_what_measures: [
        {"analysis/metrics/time.py": "from bench.job import Job"},
        {"analysis/metrics/time.py": LATE.format("import torch.distributed as dist")},
        {"analysis/metrics/time.py": FOR_TYPES.format("from workloads import base")},
    ],
    rules.the_terminal_knows_no_part_of_the_suite: [
        {"terminal/tables.py": "from results.shown import cut"},
        {"terminal/tables.py": LATE.format("import pandas")},
    ],
    rules.only_reports_of_bench_import_analysis: [
        {"bench/sweep/run.py": "from analysis.text.units import size"},
        {"bench/sweep/run.py": LATE.format("import analysis")},
        {"bench/sweep/run.py": FOR_TYPES.format("from analysis.table import frame")},
    ],
    rules.workloads_import_no_part_of_the_suite: [
        {"workloads/mlp.py": "from bench import job"},
        {"workloads/mlp.py": LATE.format("from results.record import Record")},
        {"workloads/mlp.py": "import torch.distributed as dist"},
    ],
    rules.engines_own_neither_data_nor_clock: [
        {"bench/engines/torch/adapter.py": "from workloads import data"},
        {"bench/engines/torch/adapter.py": LATE.format("from bench.measure.time import timing")},
    ],
    rules.the_worker_alone_joins_engine_and_workload: [{"bench/plan/cell.py": LATE.format("import workloads")}],
    rules.nothing_depends_on_claims_or_benchmarks: [
        {"bench/plan/cell.py": "from claims import suite"},
        {"analysis/table/rows.py": LATE.format("from tests import fakes")},
    ],
    rules.mlflow_is_imported_late_and_in_few_places: [
        {"results/mlflow_store.py": "from mlflow.tracking import MlflowClient"},
        {"bench/plan/cell.py": LATE.format("import mlflow")},
    ],
    rules.no_modules_import_each_other: [
        {"bench/a.py": "import bench.b", "bench/b.py": "from bench import a"},
        {"bench/a.py": "from bench.b import f", "bench/b.py": LATE.format("from bench import a")},
        {"bench/a.py": "from bench.b import f", "bench/b.py": FOR_TYPES.format("from bench.a import T")},
        {"bench/a.py": "import bench.b", "bench/b.py": "import bench.c", "bench/c.py": "import bench.a"},
    ],
    rules.no_packages_import_each_other: [
        {"bench/plan/a.py": "from bench.sweep import b", "bench/sweep/c.py": LATE.format("from bench.plan import d")}
        | dict.fromkeys(("bench/sweep/b.py", "bench/plan/d.py"), ""),
    ],
    rules.imports_are_absolute: [{"bench/a.py": "from . import b"}, {"bench/a.py": LATE.format("from .b import c")}],
    rules.files_are_short: [{"bench/a.py": "x = 1\n" * 351}, {"tests/unit/test_a.py": "x = 1\n" * 351}],
    rules.functions_fit_a_screen: [
        {"bench/a.py": "def f():\n" + "    x = 1\n" * 60},
        {"bench/a.py": "class A:\n    async def f(self):\n" + "        x = 1\n" * 60},
    ],
    rules.modules_say_what_they_are_for: [{"bench/a.py": "x = 1\n"}],
    rules.packages_list_all_of_their_files: [
        {"bench/a/__init__.py": '"""A.\n\nb.py  b\nc.py  c\n"""'}
        | dict.fromkeys(("bench/a/b.py", "bench/a/c.py", "bench/a/d.py"), ""),
    ],
}
"""By rule, trees that break it."""

SOUND = {
    "results/read.py": '"""Reads."""\nimport json\nfrom results.record import Record\n',
    "results/record.py": '"""The record."""\n',
    "results/mlflow_store.py": '"""The store."""\ndef f():\n    from mlflow.tracking import MlflowClient\n',
    "results/runs/1/code.py": "import torch\n",
    "analysis/table/frame.py": '"""The table."""\nimport pandas\nfrom results.read import f\n',
    "terminal/tables.py": '"""Tables."""\nimport sys\nfrom rich.table import Table\n',
    "bench/sweep/report.py": '"""A sweep."""\ndef finish():\n    from analysis.table.frame import frame\n',
    "bench/engines/base.py": '"""An engine."""\nimport torch\n',
    "bench/worker/rank.py": '"""A rank."""\nimport workloads\nfrom bench.engines import base\n',
    "workloads/__init__.py": '"""Workloads."""\nimport torch\n',
}
"""A tree that keeps every rule."""


def tree(root: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize(
    ("rule", "texts"),
    [(rule, texts) for rule, trees in VIOLATIONS.items() for texts in trees],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_violation_is_named(
    rule: Callable[[Path], list[str]], texts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "REPORTING", {"bench.sweep.report": "the end of a sweep"})
    assert rule(tree(tmp_path, SOUND | texts)) != []


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_a_sound_tree_breaks_no_rule(
    rule: Callable[[Path], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "REPORTING", {"bench.sweep.report": "the end of a sweep"})
    assert rule(tree(tmp_path, SOUND)) == []


def test_every_rule_has_a_violation() -> None:
    assert set(VIOLATIONS) == set(rules.RULES)


def test_a_module_that_no_longer_imports_analysis_must_leave_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "REPORTING", {"bench.sweep.report": "", "bench.gone": ""})
    lines = rules.only_reports_of_bench_import_analysis(tree(tmp_path, SOUND))
    assert lines == ["REPORTING: bench.gone does not import analysis"]


PARENT = (
    *("bench.__main__", "bench.cli.compose", "bench.launch.local", "bench.sweep.run"),
    "hydra_plugins.bench_launcher",
)


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (PARENT, ["torch"]),
        (["bench.sweep.run"], ["pandas", "mlflow"]),
        (["analysis.report.write"], ["torch"]),
        (["results.mlflow_store"], ["mlflow"]),
    ],
)
def test_the_parent_starts_without(modules: Sequence[str], absent: Sequence[str]) -> None:
    code = "import importlib, sys\n"
    code += f"for name in {list(modules)}:\n"
    code += " importlib.import_module(name)\n"
    code += f" imported = sorted(sys.modules.keys() & set({list(absent)}))\n"
    code += " if imported: sys.exit(f'{name} imports {imported}')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
