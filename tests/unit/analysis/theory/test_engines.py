"""All that analysis knows of an engine is one object in one file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from analysis import theory
from analysis.theory import engines, has_exact_peak, predict_rest, predict_sent, predict_state, predict_transient
from tests.fakes import cell, cnn_model

THROW_AWAY = """
from analysis.theory.theory import Theory

THEORY = Theory(
    state=lambda setting: {"params": 6, "grads": 2},
    transient=lambda setting: 5,
    sent=lambda setting: 7.0,
    gradients_kept=(1,),
    exact_peak=(1,),
    options=("width",),
)
"""


@pytest.fixture
def throw_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more file in the package of theories."""
    (tmp_path / "throw_away_engine.py").write_text(THROW_AWAY)
    monkeypatch.setattr(theory, "__path__", [*theory.__path__, str(tmp_path)])
    added = engines.discovered(tmp_path)
    assert list(added) == ["throw_away"]
    monkeypatch.setitem(engines.ENGINES, "throw_away", added["throw_away"])
    monkeypatch.delitem(sys.modules, "analysis.theory.throw_away_engine")


@pytest.mark.usefixtures("throw_away")
def test_a_new_engines_theory_is_one_file() -> None:
    record = cell(1, 2, model=cnn_model(), engine__name="throw_away", engine__width=3)
    assert predict_state(record) == {"params": 6, "grads": 2}
    assert (predict_rest(record), predict_transient(record), predict_sent(record)) == (8, 5, 7.0)
    other_stage = cell(2, 2, model=cnn_model(), engine__name="throw_away", engine__width=3)
    assert predict_rest(other_stage) == 6
    assert has_exact_peak(record) and not has_exact_peak(other_stage)


@pytest.mark.usefixtures("throw_away")
def test_without_an_option_that_it_needs_there_is_no_prediction() -> None:
    assert predict_state(cell(1, 2, model=cnn_model(), engine__name="throw_away")) is None
    assert predict_state(cell(0, 2, model=cnn_model(), engine__name="parameter_server")) is None


def test_an_engine_without_a_theory_has_no_prediction() -> None:
    record = cell(1, 2, model=cnn_model(), engine__name="unheard_of")
    assert (predict_state(record), predict_sent(record), predict_rest(record)) == (None, None, None)
    assert not has_exact_peak(record)
