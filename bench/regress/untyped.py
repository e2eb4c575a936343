"""Requests and results of earlier revisions: one ``Job`` for all purposes, ranks that returned dicts, other names."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.engines.spec import EngineSpec
from bench.job import (
    CeilingJob,
    CheckJob,
    CollectivesJob,
    Job,
    LoadJob,
    MachineJob,
    NoiseJob,
    ProfileJob,
    ReferenceJob,
    TimingJob,
    WorkloadSpec,
)

PURPOSES: dict[type[Job[Any]], str] = {
    LoadJob: "load",
    ReferenceJob: "reference",
    NoiseJob: "noise",
    CheckJob: "check",
    CeilingJob: "ceiling",
    TimingJob: "timing",
    ProfileJob: "profile",
    CollectivesJob: "collectives",
}
UNUSED = {"rank_batch": 1, "steps": 1, "warmup": 0, "batch_pool": 1, "parity_steps": 0, "memory": False} | {
    "engine": "",
    "reference": "",
}
"""Fields that every such request had, with values where its purpose has no use for them."""
INTERFERENCE = ("conditions", "foreign", "not_measured")


def untyped(job: Job[Any]) -> dict[str, Any]:
    """The fields of a request as such a revision names them; dataclasses within stay dataclasses."""
    own = {field.name: getattr(job, field.name) for field in dataclasses.fields(job)}
    if isinstance(job, MachineJob):
        where = {name: own.pop(name) for name in ("device", "backend", "precision") if name in own}
        own["spec"] = EngineSpec(world_size=job.world_size, **where)
        own["workload"] = WorkloadSpec("", 0, None, own.pop("options", {}))
    if "iterations" in own:
        own["steps"] = own.pop("iterations")
    if isinstance(job, LoadJob):
        own["spec"] = EngineSpec(world_size=1, device="cpu", backend="gloo")
    return {"purpose": PURPOSES[type(job)]} | UNUSED | own


def typed(message: dict[str, Any]) -> dict[str, Any]:
    """The result of an earlier revision's launch in the fields that results have now."""
    ends = [_with_names(end, {"last_words": "last_output"}) for end in message.get("ends", [])]
    ranks = [_nested(_with_names(rank, {"describe": "description"})) for rank in message.get("ranks", [])]
    return _with_names(message, {"blame": "cause_order"}) | {"ranks": ranks, "ends": ends}


def _with_names(document: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in document.items()}


def _nested(rank: dict[str, Any]) -> dict[str, Any]:
    """A rank's interference in one field."""
    if "conditions" not in rank:
        return rank
    interference = {name: rank[name] for name in INTERFERENCE if name in rank}
    return {name: value for name, value in rank.items() if name not in INTERFERENCE} | {"interference": interference}
