"""No two sweeps have a name in common, whatever their folders are called."""

from __future__ import annotations

import re
from pathlib import Path

from results.store import sweep_name


def test_a_folder_with_the_time_in_its_name_lends_it_to_the_sweep(tmp_path: Path) -> None:
    assert sweep_name(tmp_path / "2026-03-04_02-00-00") == "2026-03-04_02-00-00"
    assert sweep_name(tmp_path / "2026-03-04_02-00-00-2") == "2026-03-04_02-00-00-2"


def test_a_folder_without_gets_the_time_of_the_sweep_before_its_name(tmp_path: Path) -> None:
    night = tmp_path / "2026-03-04_02-00-00" / "sweep"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_sweep", sweep_name(night))
    assert "2026-03-04" not in sweep_name(night)
