"""The rules of the house, each a function that reads a tree and returns what breaks it, one line per violation."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CODE = ("conf", "workloads", "bench", "results", "terminal", "analysis", "claims", "benchmarks", "hydra_plugins")

REPORTING = {
    "bench.sweep.report": "the end of a sweep",
    "bench.sweep.dry_run": "the memory that formulas predict",
    "bench.tracking.tracker": "the same report in MLflow",
    "bench.regress.report": "the end of a regression check",
    "bench.reproduce.report": "the end of a reproduction",
}
"""The modules of bench that write reports, and alone in bench import analysis. Data still flows one way."""

MLFLOW = ("results.mlflow_store", "analysis.report.mlflow_fields", "bench.tracking")
"""Modules, or packages, that import mlflow, within functions only."""

MOST_LINES = 350
MOST_FUNCTION_LINES = 60


@dataclass(frozen=True)
class Import:
    """One import of one module or name."""

    importer: str
    imported: str
    """The module, and the name after it: ``a.b.c`` of ``from a.b import c``."""
    at_start: bool
    """Whether it runs when the importer is imported; else within a function, or for types only."""
    place: str

    def reaches(self, *names: str) -> bool:
        return any(self.imported == name or self.imported.startswith(f"{name}.") for name in names)

    def __str__(self) -> str:
        return f"{self.place}: {self.importer} imports {self.imported}"


def files(root: Path, folders: tuple[str, ...] = CODE) -> list[Path]:
    """Every Python file of these folders; what lies below ``results`` is data."""
    nested = [path for folder in folders if folder != "results" for path in sorted((root / folder).rglob("*.py"))]
    return nested + (sorted((root / "results").glob("*.py")) if "results" in folders else [])


def module_of(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(root: Path, folders: tuple[str, ...] = CODE) -> list[Import]:
    """Every import of these folders, those within functions too."""
    return [one for path in files(root, folders) for one in _imports_of(root, path)]


@dataclass(frozen=True)
class SourceFacts:
    """What rules need of a file, which is parsed once for all of them."""

    imports: list[tuple[str, int, bool]]
    """What is imported, in which line, and whether that runs when the file is imported."""
    docstring: str
    lines: int
    functions: list[tuple[str, int, int]]
    """Name, first line and number of lines."""


def facts(path: Path) -> SourceFacts:
    return _facts(path, path.stat().st_mtime_ns)


@functools.cache
def _facts(path: Path, _changed_at: int) -> SourceFacts:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return SourceFacts(
        list(_imported(tree)),
        ast.get_docstring(tree) or "",
        len(text.splitlines()),
        [(node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions],
    )


def _imported(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    for node, at_start in _statements(tree, True):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif node.level:
            names = ["." * node.level + (node.module or "")]
        else:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield name, node.lineno, at_start


def _imports_of(root: Path, path: Path) -> Iterator[Import]:
    module, place = module_of(root, path), path.relative_to(root)
    for name, line, at_start in facts(path).imports:
        yield Import(module, name, at_start, f"{place}:{line}")


def _statements(node: ast.AST, at_start: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_start
        elif not isinstance(child, ast.expr):
            runs_later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _statements(child, at_start and not runs_later and not for_types)


def results_need_the_standard_library_alone(root: Path) -> list[str]:
    return [
        str(one)
        for one in imports(root, ("results",))
        if one.imported.split(".")[0] not in {*sys.stdlib_module_names, "results"}
        and not (one.importer == "results.mlflow_store" and one.reaches("mlflow"))
    ]


def analysis_never_imports_what_measures(root: Path) -> list[str]:
    measuring = ("bench", "workloads", "claims", "torch", "torchvision", "hydra", "omegaconf")
    return [str(one) for one in imports(root, ("analysis",)) if one.reaches(*measuring)]


def the_terminal_knows_no_part_of_the_suite(root: Path) -> list[str]:
    allowed = {*sys.stdlib_module_names, "rich", "terminal"}
    return [str(one) for one in imports(root, ("terminal",)) if one.imported.split(".")[0] not in allowed]


def only_reports_of_bench_import_analysis(root: Path) -> list[str]:
    reaching = [one for one in imports(root, ("bench",)) if one.reaches("analysis")]
    stale = sorted(set(REPORTING) - {one.importer for one in reaching})
    return [str(one) for one in reaching if one.importer not in REPORTING] + [
        f"REPORTING: {module} does not import analysis" for module in stale
    ]


def workloads_import_no_part_of_the_suite(root: Path) -> list[str]:
    others = ("bench", "results", "analysis", "claims", "hydra", "torch.distributed")
    return [str(one) for one in imports(root, ("workloads",)) if one.reaches(*others)]


def engines_own_neither_data_nor_clock(root: Path) -> list[str]:
    harness = ("bench.worker", "bench.measure", "bench.tracking", "bench.sweep", "bench.launch", "bench.plan")
    command = "bench.engines.__main__"
    inside = [one for one in imports(root, ("bench",)) if f"{one.importer}.".startswith("bench.engines.")]
    engines = [one for one in inside if one.importer != command]
    return [str(one) for one in engines if one.reaches("workloads", "analysis", *harness)]


def the_worker_alone_joins_engine_and_workload(root: Path) -> list[str]:
    joins = [one for one in imports(root, ("bench",)) if one.reaches("workloads")]
    return [str(one) for one in joins if not f"{one.importer}.".startswith("bench.worker.")]


def nothing_depends_on_claims_or_benchmarks(root: Path) -> list[str]:
    below = tuple(folder for folder in CODE if folder not in ("claims", "benchmarks"))
    return [str(one) for one in imports(root, below) if one.reaches("claims", "benchmarks", "tests")]


def mlflow_is_imported_late_and_in_few_places(root: Path) -> list[str]:
    clients = [one for one in imports(root) if one.reaches("mlflow")]
    return [str(one) for one in clients if one.at_start or not f"{one.importer}.".startswith(_packages(MLFLOW))]


def _packages(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}." for name in names)


def no_modules_import_each_other(root: Path) -> list[str]:
    """Circles of imports, one line per circle; imports within functions and for types count."""
    return [" <-> ".join(sorted(circle)) for circle in _circles(_edges(root))]


def no_packages_import_each_other(root: Path) -> list[str]:
    """Circles of folders. A command (``__main__``) and a file right below a top folder stand for themselves."""
    folders = {module_of(root, path): _folder(root, path) for path in files(root)}
    edges: dict[str, set[str]] = {folder: set() for folder in folders.values()}
    for module, targets in _edges(root).items():
        edges[folders[module]] |= {folders[target] for target in targets} - {folders[module]}
    return [" <-> ".join(sorted(circle)) for circle in _circles(edges)]


def _folder(root: Path, path: Path) -> str:
    place = path.relative_to(root).parent
    return module_of(root, path) if len(place.parts) == 1 or path.stem == "__main__" else ".".join(place.parts)


def _edges(root: Path) -> dict[str, set[str]]:
    """By module, the modules of the tree that it imports."""
    modules = {module_of(root, path) for path in files(root)}
    edges: dict[str, set[str]] = {module: set() for module in modules}
    for one in imports(root):
        target = one.imported if one.imported in modules else one.imported.rpartition(".")[0]
        if target in modules and target != one.importer:
            edges[one.importer].add(target)
    return edges


def _circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that reach each other."""
    reached = {module: _reached(edges, module) for module in edges}
    circles: list[set[str]] = []
    for module in sorted(edges):
        circle = {other for other in reached[module] if module in reached[other]}
        if circle and circle not in circles:
            circles.append(circle)
    return circles


def _reached(edges: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    ahead = list(edges[start])
    while ahead:
        module = ahead.pop()
        if module not in reached:
            reached.add(module)
            ahead += edges[module]
    return reached


def imports_are_absolute(root: Path) -> list[str]:
    return [str(one) for one in imports(root) if one.imported.startswith(".")]


def files_are_short(root: Path) -> list[str]:
    lengths = [(path, facts(path).lines) for path in files(root, (*CODE, "tests"))]
    return [f"{path.relative_to(root)}: {lines} lines" for path, lines in lengths if lines > MOST_LINES]


def functions_fit_a_screen(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{line}: {name} has {lines} lines"
        for path in files(root, (*CODE, "tests"))
        for name, line, lines in facts(path).functions
        if lines > MOST_FUNCTION_LINES
    ]


def modules_say_what_they_are_for(root: Path) -> list[str]:
    return [f"{path.relative_to(root)}: no docstring" for path in files(root) if not facts(path).docstring]


def packages_list_all_of_their_files(root: Path) -> list[str]:
    """A package's docstring that lists its files, two or more, lists each file of the package."""
    violations = []
    for path in files(root):
        if path.name == "__init__.py":
            listed = set(re.findall(r"\b\w+\.py\b", facts(path).docstring))
            there = {file.name for file in path.parent.glob("*.py") if not file.name.startswith("__")}
            if len(listed & there) > 1:
                violations += [f"{path.relative_to(root)}: does not list {name}" for name in sorted(there - listed)]
    return violations


RULES: tuple[Callable[[Path], list[str]], ...] = (
    results_need_the_standard_library_alone,
    analysis_never_imports_what_measures,
    the_terminal_knows_no_part_of_the_suite,
    only_reports_of_bench_import_analysis,
    workloads_import_no_part_of_the_suite,
    engines_own_neither_data_nor_clock,
    the_worker_alone_joins_engine_and_workload,
    nothing_depends_on_claims_or_benchmarks,
    mlflow_is_imported_late_and_in_few_places,
    no_modules_import_each_other,
    no_packages_import_each_other,
    imports_are_absolute,
    files_are_short,
    functions_fit_a_screen,
    modules_say_what_they_are_for,
    packages_list_all_of_their_files,
)
