"""Hot paths against earlier runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import against_earlier


def test_hot_paths_are_compared_by_their_fastest_round_with_earlier_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(number: int, **fastest_s: float) -> None:
        timers = {"launch": "perf_counter"}
        entries = [
            {"name": name, "options": {"timer": timers.get(name, "process_time")}, "stats": {"min": seconds}}
            for name, seconds in fastest_s.items()
        ]
        (tmp_path / "Linux").mkdir(exist_ok=True)
        (tmp_path / "Linux" / f"{number:04}_commit.json").write_text(json.dumps({"benchmarks": entries}))

    def compare() -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["against_earlier", str(tmp_path)])
        code = against_earlier.main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    assert compare()[0] == 2, "nothing is saved"
    save(1, pack=1.0, launch=1.0)
    assert compare()[0] == 0, "the first has nothing to be slower than"
    save(2, pack=9.0, launch=1.0)  # disturbed
    save(3, pack=1.0, launch=1.0)
    save(4, pack=1.4, launch=2.9)
    assert compare()[0] == 0
    save(5, pack=1.0, launch=4.0, new=1.0)
    code, printed = compare()
    assert code == 1
    assert "1 of 2 are slower than in 4 earlier runs" in printed
    assert [line.split()[0] for line in printed.splitlines() if "slower: 3 or more" in line] == ["launch"]
    save(6, pack=1.0)
    code, printed = compare()
    assert code == 2 and "not timed, as they were in the run before: launch, new" in printed
    save(7, pack=1.0)
    assert compare()[0] == 0, "what was taken away is said once"
