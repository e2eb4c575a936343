"""The dependency rule, read from the imports: data flows conf -> bench -> results -> analysis."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def reaches(path: Path, *packages: str) -> list[str]:
    return sorted(
        name
        for name in imports_of(path)
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    )


def files(*places: str) -> list[Path]:
    found = [
        path for place in places for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
    ]
    assert found
    return found


@pytest.mark.parametrize("path", files("bench/record", "results"), ids=str)
def test_what_analysis_reads_needs_the_standard_library_alone(path: Path) -> None:
    foreign = [name for name in imports_of(path) if name.split(".")[0] not in sys.stdlib_module_names]
    assert [name for name in foreign if not name.startswith(("bench.record", "results"))] == []


@pytest.mark.parametrize("path", files("analysis"), ids=str)
def test_analysis_reads_records_and_never_torch(path: Path) -> None:
    assert reaches(path, "torch", "torchvision", "hydra", "omegaconf", "workloads") == []
    allowed = ("bench.record",)
    assert [name for name in reaches(path, "bench") if not name.startswith(allowed) and name != "bench"] == []


def test_one_module_of_analysis_imports_mlflow_and_only_inside_functions() -> None:
    store = ROOT / "analysis/mlflow_store.py"
    assert [path for path in files("analysis") if reaches(path, "mlflow")] == [store]
    code = "import analysis.mlflow_store, sys; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("path", [path for path in files("bench/engines") if path.name != "__main__.py"], ids=str)
def test_an_engine_owns_neither_data_nor_clock(path: Path) -> None:
    assert reaches(path, "workloads", "analysis", "bench.loop", "bench.tracking", "bench.measure", "bench.worker") == []


@pytest.mark.parametrize("path", files("workloads"), ids=str)
def test_a_workload_knows_no_engine(path: Path) -> None:
    assert reaches(path, "bench", "analysis", "hydra", "torch.distributed") == []


def test_the_worker_alone_joins_engine_and_workload() -> None:
    joins = {path.parent for path in files("bench") if reaches(path, "workloads")}
    assert joins == {ROOT / "bench/worker"}


@pytest.mark.parametrize(
    "module", ["bench.sweep", "bench.cli", "bench.launch", "analysis.report", "hydra_plugins.bench_launcher"]
)
def test_the_parent_never_imports_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("path", files("bench", "analysis", "workloads", "hydra_plugins"), ids=str)
def test_nothing_depends_on_claims(path: Path) -> None:
    assert reaches(path, "claims") == []
