"""Requests and results of earlier revisions: one ``Job`` for all purposes, ranks that returned dicts, other names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
from results import upgrade

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
DESCRIPTION = {"describe": "description"}
UPGRADES: dict[str, Callable[[Any], Any]] = {
    "model": upgrade.with_step,
    "interference": upgrade.with_background,
    "ceiling": upgrade.with_background,
}
"""By field of a rank's result, from earlier versions of the record's format."""
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
    ends = [upgrade.with_names(end, upgrade.RANK_END) for end in message.get("ends", [])]
    ranks = [_upgraded(_nested(upgrade.with_names(rank, DESCRIPTION))) for rank in message.get("ranks", [])]
    return {**upgrade.with_names(message, {"blame": "cause_order"}), "ranks": ranks, "ends": ends}


def _upgraded(rank: dict[str, Any]) -> dict[str, Any]:
    """What a record keeps of a rank's result, in the record's format of this version."""
    return {name: UPGRADES[name](value) if name in UPGRADES else value for name, value in rank.items()}


def _nested(rank: dict[str, Any]) -> dict[str, Any]:
    """A rank's interference in one field."""
    if "conditions" not in rank:
        return rank
    interference = {name: rank[name] for name in INTERFERENCE if name in rank}
    return {name: value for name, value in rank.items() if name not in INTERFERENCE} | {"interference": interference}
