"""measure=full as a person uses it: every cell says what its steps are made of, or why that cannot be said."""

from __future__ import annotations

from pathlib import Path

from tests.integration.test_sweep import QUICK, records, run, summary


def test_a_sweep_with_profiles_attributes_steps_and_times_silent_launches(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    done = run(
        tmp_path,
        *("-m", "engine=torch", "gpus=1,2", *QUICK, "measure=full", "tracking=none", f"hydra.sweep.dir={folder}"),
    )
    assert done.returncode == 0, done.stderr
    assert "10/10 launches" in done.stderr
    alone, two = sorted(records(folder).values(), key=lambda record: int(record.config["gpus"]))
    assert alone.attribution and two.attribution
    assert (alone.attribution.not_silenced, alone.attribution.silent) == ("one rank has no other to send to", [])
    assert [launch.round for launch in two.attribution.silent] == [0, 1]
    for record in (alone, two):
        assert record.attribution
        assert len(record.attribution.steps) == record.config["gpus"]
        assert all(step.compute_s > 0 for rank in record.attribution.steps for step in rank)
    assert {row["gpus"]: row["exposed_removed_s"] != "" for row in summary(folder)} == {"1": False, "2": True}
    assert "What a step is made of" in (folder / "report.md").read_text(encoding="utf-8")
