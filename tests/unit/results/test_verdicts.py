"""A verdict is declared in one place, and every use of it follows."""

from __future__ import annotations

import re
from pathlib import Path

from results import verdicts
from results.record import STATUSES
from results.verdicts import ALL, IDLE, UNRANKED, UNTRAINED, VERDICTS

ROOT = Path(__file__).resolve().parents[3]


def test_no_two_verdicts_share_a_letter_or_an_id() -> None:
    assert len({verdict.letter for verdict in ALL}) == len({verdict.id for verdict in ALL}) == len(ALL)


def test_what_did_not_train_is_not_ranked_and_what_did_not_update_did_not_train() -> None:
    assert set(IDLE) <= set(UNTRAINED) <= set(UNRANKED)


def test_every_status_has_a_meaning_but_ok() -> None:
    assert set(verdicts.STATUS_MEANINGS) == set(STATUSES) - {"ok"}


def test_every_verdict_is_decided_somewhere() -> None:
    rules = "".join((ROOT / place).read_text() for place in ("bench/measure/verdicts.py", "results/invariants.py"))
    undecided = [name for name in VERDICTS if not re.search(rf'"{name}"', rules)]
    assert undecided == []
