"""Whether a record that is well formed can be analysed: numbers that a run could have, and settings of their types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import isfinite
from typing import Any

from results.declare import each_setting, is_valid, type_name, valid_values
from results.identity import flatten
from results.launches import Launch
from results.record import NO_ENGINE, Record, RecordError, world_size
from results.settings import Config
from results.shown import shown
from results.traces import FOLDER

MOST_RANKS = 2**20
MOST_ELEMENTS = 2**50
"""Of a model or a collective: a petabyte."""
LONGEST_S = 1e9
"""Thirty years."""

ENGINE_COUNTS = ("servers",)
"""Options of engines that formulas compute with."""


def check(record: Record) -> None:
    """Raises RecordError, in a line that names the field, for a record that cannot be analysed."""
    config, resolved = record.config, record.resolved
    for group in ("engine", "workload"):
        option = config.get(group)
        if not isinstance(option, dict) or not isinstance(option.get("name"), str):
            raise RecordError("config names no engine or no workload")
    _check_config(config)
    _check_world(record)
    _check_model(record)
    _check_memory(record)
    _check_collectives(record)
    _check_attribution(record)
    _check_traces(record)
    if record.launches and not isinstance(resolved.get("global_batch"), int):
        raise RecordError("launches were timed but resolved.global_batch is missing")
    rounds = [launch.round for launch in record.launches]
    if len(set(rounds)) < len(rounds) or min(rounds, default=0) < 0:
        raise RecordError("record.launches: a round is negative or occurs twice")
    for launch in record.launches:
        if config["engine"]["name"] == NO_ENGINE:
            _check_sizes(launch)
        else:
            _check_steps(launch, uneven=bool(resolved.get("outside_parity")))
    if config["engine"]["name"] == NO_ENGINE:
        kept = {
            tuple((entry.kind, entry.size_bytes) for entry in launch.collective_times) for launch in record.launches
        }
        if len(kept) > 1:
            raise RecordError("launches timed collectives, but not the same ones")


def _check_config(config: Mapping[str, Any]) -> None:
    """Settings fit their declaration; those of other versions of the code, and their words, are left alone."""
    values = flatten(config)
    for path, spec, _ in each_setting(Config()):
        value = values.get(path)
        is_word = isinstance(value, str) and type_name(spec) == "str"
        expect(value is None or is_word or is_valid(spec, value), f"config.{path}", value, valid_values(spec))
    for name in ENGINE_COUNTS:
        value = config["engine"].get(name)
        expect(value is None or (_whole(value) and value >= 0), f"config.engine.{name}", value, "a count")


def _check_world(record: Record) -> None:
    for where, value in (("config.gpus", record.config.get("gpus")), ("world_size", record.resolved.get("world_size"))):
        expect(value is None or (_whole(value) and 1 <= value <= MOST_RANKS), where, value, "a number of ranks")
    missing = [name for name in ("gpus", "stage") if record.config.get(name) is None]
    if missing:
        raise RecordError(f"config.{missing[0]} is missing")
    engine = record.config["engine"]
    if engine["name"] == NO_ENGINE and record.launches and world_size(record) < 2:
        raise RecordError("collectives were timed on fewer than two ranks")
    if record.ceiling:
        expect(_positive(record.ceiling.flops_per_s), "ceiling.flops_per_s", record.ceiling.flops_per_s, "above 0")


def _check_model(record: Record) -> None:
    model = record.model
    if model is None:
        return
    expect(1 <= model.units_per_sample <= MOST_ELEMENTS, "model.units_per_sample", model.units_per_sample, "at least 1")
    expect(0 <= model.flops_per_unit < 1e30, "model.flops_per_unit", model.flops_per_unit, "at least 0")
    again = model.recomputed_flops_per_unit
    expect(0 <= again < 1e30, "model.recomputed_flops_per_unit", again, "at least 0")
    computing = vars(model.compute_memory) if model.compute_memory else {}
    for name, value in {"buffer_bytes": model.buffer_bytes, **computing}.items():
        expect(0 <= value <= MOST_ELEMENTS, f"model.{name}", value, "at least 0")
    for parameter in model.parameters:
        sound = len(parameter.shape) <= 64 and all(0 <= size <= MOST_ELEMENTS for size in parameter.shape)
        expect(sound and parameter.unit >= -1, f"parameter {parameter.name}", parameter.shape, "a shape and its unit")
    expect(
        model.parameter_count <= MOST_ELEMENTS, "the parameter count", model.parameter_count, f"at most {MOST_ELEMENTS}"
    )


def _check_memory(record: Record) -> None:
    for rank, memory in enumerate(record.memory):
        optional = [value for value in (memory.reserved_bytes, memory.beyond_allocator_bytes) if value is not None]
        copied = (memory.copied_to_host_bytes, memory.copied_to_device_bytes)
        optional += [value for value in copied if value is not None]
        parts = [*memory.state_bytes.values(), *memory.rest_by_kind.values(), *memory.peak_by_kind.values()]
        parts += memory.host_state_bytes.values()
        for value in (memory.rest_bytes, memory.peak_bytes, *memory.step_peaks_bytes, *optional, *parts):
            expect(0 <= value <= MOST_ELEMENTS, f"memory[{rank}]", value, "bytes")
    if record.search:
        limit = record.search.limit_bytes
        batches = [trial.batch for trial in record.search.tried]
        peaks = [trial.peak_bytes for trial in record.search.tried if trial.peak_bytes is not None]
        for value in (1 if limit is None else limit, record.search.multiple_of, record.search.max_batch, *batches):
            expect(1 <= value <= MOST_ELEMENTS, "search", value, "counts of at least 1")
        for value in peaks:
            expect(0 <= value <= MOST_ELEMENTS, "search", value, "bytes")


def _check_collectives(record: Record) -> None:
    for line in (line for ledger in [record.collectives or [], *record.collectives_by_rank] for line in ledger):
        sound = 0 <= line.elements <= MOST_ELEMENTS and 0 <= line.count <= 2**40 and 1 <= line.group_size <= MOST_RANKS
        sound = sound and line.total_bytes <= MOST_ELEMENTS
        expect(sound, f"collectives: {line.kind}", line.elements, "counts that a step could have")


def _check_attribution(record: Record) -> None:
    attribution = record.attribution
    if attribution is None:
        return
    if len({len(steps) for steps in attribution.steps}) > 1 or any(not steps for steps in attribution.steps):
        raise RecordError("attribution.steps: ranks differ in their number of steps, or have none")
    for part in (part for steps in attribution.steps for part in steps):
        seconds = (*part.parts_s.values(), part.communication_s, part.overlapped_s)
        expect(
            _positive(part.step_s) and all(abs(value) < LONGEST_S for value in seconds),
            "attribution.steps",
            part.step_s,
            "seconds",
        )
    for launch in attribution.silent:
        _check_steps(launch, uneven=False)


def _check_traces(record: Record) -> None:
    if record.traces is None:
        return
    for file in record.traces.files:
        is_inside = re.fullmatch(rf"{FOLDER}/[\w][\w.-]*", file.name) is not None
        expect(is_inside and file.size_bytes >= 0 and file.rank >= 0, "traces.files", file.name, f"{FOLDER}/NAME")
    timeline = record.traces.timeline
    if timeline is None:
        return
    counts = {len(timeline.times_s), *map(len, timeline.bytes_by_kind.values())}
    if len(counts) > 1 or not timeline.times_s:
        raise RecordError("traces.timeline: lists differ in length, or are empty")
    moments = (timeline.duration_s, *timeline.times_s, *(phase.at_s for phase in timeline.phases))
    for moment in moments:
        expect(0 <= moment < LONGEST_S, "traces.timeline", moment, "seconds")
    for size in (size for sizes in timeline.bytes_by_kind.values() for size in sizes):
        expect(0 <= size <= MOST_ELEMENTS, "traces.timeline", size, "bytes")


def _check_steps(launch: Launch, *, uneven: bool) -> None:
    where = f"launch of round {launch.round}"
    series = [steps for rank in launch.ranks for steps in (rank.forward_backward_s, rank.optimizer_s, rank.losses)]
    counts = {len(steps) for steps in series}
    if not series or 0 in counts or (len(counts) > 1 and not uneven):
        raise RecordError(f"{where} has no steps, or ranks differ in their number")
    for rank in launch.ranks:
        waits = len(rank.data_s) or len(rank.losses)
        if not len(rank.forward_backward_s) == len(rank.optimizer_s) == len(rank.losses) == waits:
            raise RecordError(f"{where}: lists of a rank differ in length")
        times_s = [*rank.data_s, *rank.forward_backward_s, *rank.optimizer_s]
        are_times = all(map(isfinite, times_s)) and min(times_s) >= 0 and max(times_s) < LONGEST_S
        if not (are_times and _positive(rank.wall_s)):
            raise RecordError(f"{where} has a time that is negative or not finite")
        if min(rank.step_times_s()) <= 0:
            raise RecordError(f"{where} has a step that took no time")


def _check_sizes(launch: Launch) -> None:
    """Of a launch that timed collectives: ascending sizes of some, with times of some length."""
    where = f"launch of round {launch.round}"
    if launch.ranks or not launch.collective_times:
        raise RecordError(f"{where} timed no collectives, or steps as well")
    for entry in launch.collective_times:
        if not entry.times_s or not all(map(_positive, entry.times_s)) or not 0 < entry.size_bytes <= MOST_ELEMENTS:
            raise RecordError(f"{where} timed no collectives, or some took no time")
    _reject_repeats([(entry.kind, entry.size_bytes) for entry in launch.collective_times], where)


def _reject_repeats(keys: Iterable[tuple[str, int]], where: str) -> None:
    if any(one == other for one, other in pairwise(sorted(keys))):
        raise RecordError(f"{where} timed a collective twice at one size")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(value: float) -> bool:
    return 0 < value < 1e30


def expect(is_so: bool, where: str, value: Any, valid: str) -> None:
    if not is_so:
        raise RecordError(f"{where} is {shown(value)}, expected {valid}")
