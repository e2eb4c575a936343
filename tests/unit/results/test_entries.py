"""Entries of a record's environment, resolved settings and conditions: written as declared, and read strictly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bench.measure.machine import environment, nvml
from bench.measure.machine.torch_build import Machine
from results.conditions import CONDITIONS, GPU_LIMITS
from results.decode import decode
from results.entries import entries
from results.environment import Environment
from results.record import Record, RecordError
from results.resolved import Resolved
from results.source import Source
from tests.fakes import cell


def test_the_environment_of_this_machine_is_what_is_declared() -> None:
    here = environment.collect(Machine("2.11.0", 0, None, 0.1), {"OMP_NUM_THREADS": "1"}, Source("aa", commit="bb"))
    assert set(entries(Environment)) - set(here) == {"host_count", "hosts"}
    assert set(here) <= set(entries(Environment))
    assert decode(json.loads(json.dumps(here)), Environment, "environment") == here


@pytest.mark.parametrize(
    ("where", "entry", "message"),
    [
        ("environment", {"cores": "two"}, "record.environment.cores: expected float, found str"),
        ("environment", {"gpus": [{"name": 3}]}, r"record.environment.gpus\[0\].name: expected str, found int"),
        ("environment", {"memory_bytes": -1}, "record.environment.memory_bytes: -1, expected a number of at least 0"),
        ("resolved", {"world_size": 0}, "record.resolved.world_size: 0, expected a number of at least 1"),
        ("resolved", {"cores": float("nan")}, "record.resolved.cores: nan, expected"),
        ("resolved", {"engine": {"bucket_mb": []}}, "record.resolved.engine.bucket_mb: expected float, found list"),
    ],
)
def test_an_entry_of_another_type_is_rejected_by_its_name(
    tmp_path: Path, where: str, entry: dict[str, Any], message: str
) -> None:
    document = dataclasses.asdict(cell())
    document[where] |= entry
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match=message):
        Record.read(path)


def test_entries_of_other_versions_and_of_one_engine_are_kept_as_they_are() -> None:
    document = {"world_size": 2, "of_a_later_version": [1], "cores": 2, "engine": {"plan": {"0": "colwise"}}}
    assert json.dumps(decode(document, Resolved, "resolved")) == json.dumps(document)


def test_every_limit_of_a_gpu_has_its_condition() -> None:
    assert set(GPU_LIMITS.values()) == set(nvml.LIMITS) and set(GPU_LIMITS) <= set(CONDITIONS)
