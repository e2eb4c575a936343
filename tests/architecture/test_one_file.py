"""A new setting, warning or engine is declared in one file: everything else follows from the declaration.

Each test runs a program on a tree in which a single file was changed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

WITH_FILE = """
import importlib, importlib.util, sys
name, path = sys.argv[1:]
package = importlib.import_module(name.rpartition(".")[0])
spec = importlib.util.spec_from_file_location(name, path)
module = sys.modules[name] = importlib.util.module_from_spec(spec)
setattr(package, name.rpartition(".")[2], module)
spec.loader.exec_module(module)
"""
"""Runs a module from another file."""

SETTING = """
    throwaway: int = setting(1, "a setting that only this test has", min=1, max=9, optional=True, label="away {}")
"""

USES_SETTING = """
import dataclasses
from analysis.text.labels import label
from bench import engines
from bench.checks import ConfigError
from bench.cli import help, overrides
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.plan.cell import Cell
from results import validate
from results.record import RecordError
from results.settings import Config
from results.training_settings import NEUTRAL
from tests.fakes import cell

def rejected(call, error):
    try:
        call()
    except error as reason:
        return str(reason)

assert "throwaway=1" in help.settings_table() and "a setting that only this test has" in help.settings_table()
overrides.check_overrides(["throwaway=9"])
assert "valid: a whole number of at least 1, at most 9" in rejected(
    lambda: overrides.check_overrides(["throwaway=10"]), ConfigError
)
spec = EngineSpec(world_size=2, device="cpu", backend="gloo", throwaway=2)
reason = rejected(lambda: engines.check_settings("native", "bench.engines.native", spec), EngineUnsupported)
assert "throwaway=2" in reason and NEUTRAL["throwaway"] == 1
assert label("throwaway", 2) == "away 2"

def planned(value):
    config = Config(engine={"name": "native", "package": "bench.engines.native"}, workload={"name": "mlp"})
    return Cell(dataclasses.replace(config, throwaway=value), "cpu", "gloo", 1, 2, None, "").id

assert planned(1) != planned(2)
record = cell()
record.config["throwaway"] = 3
validate.check(record)
record.config["throwaway"] = "three"
assert "config.throwaway is 'three'" in rejected(lambda: validate.check(record), RecordError)
"""

WARNING = """
    Verdict("throwaway", "!", "a warning that only this test has.", ranked=False, notes=("advice",)),
"""

USES_WARNING = """
import sys
sys.path.insert(0, "scripts")
import reference_pages
from analysis.metrics.scaling import is_ranked
from analysis.table import frame, warnings
from results.verdicts import UNRANKED, letters, noted
from tests.fakes import cell

assert letters("oversubscribed;throwaway;of_other_code") == "o!?"
assert "throwaway" in UNRANKED and "throwaway" in noted("advice") and "throwaway" not in noted("comparison")
assert "| `throwaway` | `!` | A warning that only this test has. | **no** |" in reference_pages.warnings()
table = frame.frame([cell(verdicts=["throwaway"])])
assert [flag.meaning for flag in warnings.verdicts(table)] == ["a warning that only this test has."]
"""

THEORY = """
from analysis.theory.theory import Theory

THEORY = Theory(
    state=lambda setting: {"params": 6, "grads": 2},
    transient=lambda setting: 5,
    sent=lambda setting: 7.0,
    gradients_kept=(1,),
    exact_peak=(1,),
)
"""

USES_THEORY = """
import sys
from analysis import theory
theory.__path__.append(sys.argv[1])
from analysis.theory import engines
from pathlib import Path
engines.ENGINES |= engines.discovered(Path(sys.argv[1]))
from analysis.metrics.memory import memory
from tests.fakes import cell, cnn_model

record = cell(1, 2, model=cnn_model(), engine__name="throwaway")
assert memory(record).predicted_bytes == 8 and memory(record).sent_bytes == 7
"""


def run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def changed(file: str, before: str, added: str, folder: Path) -> str:
    """A copy of a file with a line added in front of the first ``before``."""
    text = (ROOT / file).read_text(encoding="utf-8")
    assert before in text
    path = folder / Path(file).name
    path.write_text(text.replace(before, added.strip("\n") + "\n" + before, 1), encoding="utf-8")
    return str(path)


def test_a_setting_is_one_field_that_help_checks_engines_identity_and_labels_follow(tmp_path: Path) -> None:
    path = changed("results/training_settings.py", "    lr: float = setting(", SETTING, tmp_path)
    run(WITH_FILE + USES_SETTING, "results.training_settings", path)


def test_a_warning_is_one_entry_that_tables_ranking_and_the_reference_follow(tmp_path: Path) -> None:
    path = changed("results/verdicts.py", '    Verdict(\n        "oversubscribed"', WARNING, tmp_path)
    run(WITH_FILE + USES_WARNING, "results.verdicts", path)


def test_the_theory_of_an_engine_is_one_file_that_predictions_follow(tmp_path: Path) -> None:
    (tmp_path / "throwaway_engine.py").write_text(THEORY, encoding="utf-8")
    run(USES_THEORY, str(tmp_path))
