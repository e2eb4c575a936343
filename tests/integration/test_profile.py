"""measure=full as a person uses it: every cell says what its steps are made of, or why that cannot be said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tests.integration.test_sweep import QUICK, records, run, summary


def trace_events(path: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return events


def test_a_sweep_with_profiles_and_traces_attributes_steps_and_writes_files_per_rank(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    done = run(
        tmp_path,
        *("-m", "engine=torch", "gpus=1,2", *QUICK, "measure=full", "measure.trace=true", f"hydra.sweep.dir={folder}"),
        drawn=True,
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
    assert two.traces and two.memory and two.traces.timeline
    assert two.traces.not_written == {}
    assert sorted((file.rank, file.kind) for file in two.traces.files) == [
        *[(0, "memory"), (0, "steps")],
        *[(1, "memory"), (1, "steps")],
    ]
    for file in two.traces.files:
        path = folder / file.name
        names = [event["name"] for event in trace_events(path)]
        assert path.stat().st_size == file.size_bytes
        if file.kind == "steps":
            assert names.count("bench.step") == len(two.attribution.steps[file.rank])
        else:
            totals = [event["args"]["bytes"] for event in trace_events(path) if event["name"] == "total"]
            assert max(totals) == two.memory[file.rank].peak_bytes
    assert two.traces.timeline.peak_bytes == max(memory.peak_bytes for memory in two.memory)
    assert all(f'href="{file.name}"' in (folder / "report.html").read_text() for file in two.traces.files)
    assert (folder / "figures" / "memory_over_time-01.png").exists()
    logged = [path.name for path in (tmp_path / "mlartifacts").rglob("traces/*")]
    assert sorted(logged) == sorted(path.name for path in (folder / "traces").iterdir())
