"""Whether a cell that was run again came out the same: bit by bit where it must, within the old interval where it may.

Exact figures decide: status, data, parameters, model state, collectives, and under ``deterministic=true`` every loss
and the digest of the weights. Times, throughput and peaks are said to lie inside or outside of what the record holds
and decide nothing: an interval of few launches misses an equal run often, and another machine has other times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Literal

from analysis.metrics import time
from analysis.metrics.traffic import sent_bytes
from analysis.statistics import medians
from analysis.text.units import counted, is_finite, mib, ms, number
from results.differences import Difference, differences, resolved, surroundings
from results.identity import frozen
from results.record import Record

Verdict = Literal["equal", "differs", "inside", "outside", "not judged"]


@dataclass(frozen=True)
class FigureLine:
    """One figure then and now."""

    figure: str
    then: str
    now: str
    verdict: Verdict
    decides: bool = False
    """Whether a difference means that the cell was not reproduced."""


def lines(before: Record, after: Record) -> list[FigureLine]:
    """Every figure that either record has, the deciding ones first."""
    all_lines = [*_identity(before, after), *_bits(before, after), *_bytes(before, after), *_intervals(before, after)]
    return sorted(all_lines, key=lambda line: not line.decides)


def failed(entries: Sequence[FigureLine]) -> list[str]:
    """The figures by which the cell was not reproduced; none if it was."""
    return [line.figure for line in entries if line.decides and line.verdict == "differs"]


def exact(
    figure: str, then: Any, now: Any, words: tuple[str, str] | None = None, *, decides: bool = True
) -> FigureLine:
    same = frozen(then) == frozen(now)  # as JSON, in which a NaN is itself
    texts = words or (str(then), str(now))
    return FigureLine(figure, *texts, "equal" if same else "differs", decides)


def within(figure: str, low: float, high: float, then: str, now: float, now_words: str) -> FigureLine:
    if isnan(low) or isnan(high):
        return FigureLine(figure, f"{then}, no interval", now_words, "not judged")
    return FigureLine(figure, then, now_words, "inside" if low <= now <= high else "outside")


def _identity(before: Record, after: Record) -> Iterator[FigureLine]:
    yield exact("status", before.status, after.status)
    hosts = [side.resolved.get("hosts", []) for side in (before, after)]
    if any(hosts):
        ranks = [[host.get("ranks") for host in side] for side in hosts]
        yield exact("ranks by host", ranks[0], ranks[1], (_placement(hosts[0]), _placement(hosts[1])))
    if before.model and after.model:
        digests = (before.model.data_digest, after.model.data_digest)
        yield exact("data digest", digests[0], digests[1], (digests[0][:16], digests[1][:16]))
        shapes = [[dataclasses.asdict(entry) for entry in side.parameters] for side in (before.model, after.model)]
        counts = (f"{before.model.parameter_count:,}", f"{after.model.parameter_count:,}")
        yield exact("parameters", shapes[0], shapes[1], counts)


def _placement(hosts: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{host.get('name')}: {host.get('ranks')}" for host in hosts) or "one machine"


def _bits(before: Record, after: Record) -> Iterator[FigureLine]:
    """Figures that are equal bit by bit under deterministic=true; without it they do not decide."""
    must = bool(before.config.get("deterministic"))
    if before.parity or after.parity:
        sides = [side.parity.losses if side.parity else [] for side in (before, after)]
        yield _losses("losses of the parity steps", sides[0], sides[1], must)
        digests = [side.parity.weights_digest if side.parity else "" for side in (before, after)]
        short = [digest[:16] or "none" for digest in digests]
        yield exact("digest of the weights", digests[0], digests[1], (short[0], short[1]), decides=must)
    pairs = [
        (then, now)
        for then, now in zip(before.launches, after.launches, strict=False)
        if then.ranks or now.ranks  # a launch that only times collectives has no losses
    ]
    if pairs:
        sides = [[loss for pair in pairs for rank in pair[side].ranks for loss in rank.losses] for side in (0, 1)]
        yield _losses(f"losses of {counted(len(pairs), 'timed launch')}", sides[0], sides[1], must)


def _losses(figure: str, then: list[float], now: list[float], must: bool) -> FigureLine:
    if len(then) != len(now):
        return exact(figure, then, now, (counted(len(then), "loss"), counted(len(now), "loss")), decides=must)
    at = next((at for at, pair in enumerate(zip(then, now, strict=True)) if frozen(pair[0]) != frozen(pair[1])), None)
    if at is None:
        same = f"{counted(len(then), 'loss')}, last {then[-1]:.9g}" if then else "none"
        return exact(figure, then, now, (same, same), decides=must)
    differing = sum(frozen(one) != frozen(other) for one, other in zip(then, now, strict=True))
    words = (f"loss {at}: {then[at]!r}", f"loss {at}: {now[at]!r} ({differing} of {len(then)} differ)")
    return exact(figure, then, now, words, decides=must)


def _bytes(before: Record, after: Record) -> Iterator[FigureLine]:
    sides = (before, after)
    if before.memory or after.memory:
        states = [[rank.state_bytes for rank in side.memory] for side in sides]
        most = [max((rank.model_state_bytes for rank in side.memory), default=0) for side in sides]
        yield exact("model state", states[0], states[1], (f"{most[0]:,} B", f"{most[1]:,} B"))
    if before.collectives is not None or after.collectives is not None:
        ledgers = [_calls(side) for side in sides]
        counts = [sum(call.count for call in side.collectives or []) for side in sides]
        yield exact("collectives of a step", ledgers[0], ledgers[1], (f"{counts[0]} calls", f"{counts[1]} calls"))
        sent = [sent_bytes(side) for side in sides]
        words = [f"{value:,.0f} B" if is_finite(value) else "not counted" for value in sent]
        yield exact("bytes sent in a step", sent[0], sent[1], (words[0], words[1]))
    if before.search or after.search:
        fits = [side.search.largest_fit if side.search else 0 for side in sides]
        yield exact("largest batch that fits", fits[0], fits[1], decides=False)


def _calls(record: Record) -> list[list[dict[str, Any]]]:
    """Rank 0's collectives, then every rank's where they are not all alike."""
    ledgers = [record.collectives or [], *record.collectives_by_rank]
    return [[dataclasses.asdict(call) for call in ledger] for ledger in ledgers]


def _intervals(before: Record, after: Record) -> Iterator[FigureLine]:
    timed = [[launch for launch in side.launches if launch.ranks] for side in (before, after)]
    if all(timed):
        then, now = (medians.median_interval([time.step_time_s(launch) for launch in side]) for side in timed)
        yield _median("step time (ms)", then, now, ms)
        if not before.resolved.get("simulated"):
            rates = [
                medians.median_interval([time.throughput_per_s(side, launch) for launch in launches])
                for side, launches in zip((before, after), timed, strict=True)
            ]
            yield _median("throughput (per s)", rates[0], rates[1], number)
            losses = [dataclasses.replace(before, launches=[launch]).final_loss or 0.0 for launch in timed[0]]
            final = after.final_loss or 0.0
            yield within("final loss", min(losses), max(losses), _range(losses, "{:.9g}".format), final, f"{final:.9g}")
    peaks = [_step_peaks(side) for side in (before, after)]
    if all(peaks):
        peak = sorted(peaks[1])[len(peaks[1]) // 2]
        yield within("peak (MiB)", min(peaks[0]), max(peaks[0]), _range(peaks[0], mib), peak, mib(peak))
    yield from _by_size(before, after)


def _by_size(before: Record, after: Record) -> Iterator[FigureLine]:
    """The collectives that ``workload=collectives`` times."""
    times: list[dict[tuple[str, int], list[float]]] = [{}, {}]
    for side, record in zip(times, (before, after), strict=True):
        for launch in record.launches:
            for entry in launch.collective_times:
                middle = sorted(entry.times_s)[len(entry.times_s) // 2]
                side.setdefault((entry.kind, entry.size_bytes), []).append(middle)
    for key, samples in times[0].items():
        if key in times[1]:
            then, now = medians.median_interval(samples), medians.median_interval(times[1][key])
            yield _median(f"{key[0]} of {key[1]:,} B (ms)", then, now, ms)


def _median(figure: str, then: medians.Interval, now: medians.Interval, words: Any) -> FigureLine:
    interval = "" if isnan(then.low) else f" [{words(then.low)}, {words(then.high)}] at {then.level_text()}"
    return within(figure, then.low, then.high, words(then.value) + interval, now.value, words(now.value))


def _range(values: Sequence[float], words: Any) -> str:
    low, high = words(min(values)), words(max(values))
    return str(low) if low == high else f"{low} to {high}"


def _step_peaks(record: Record) -> list[int]:
    """The largest rank's peak in each step that was watched."""
    if not record.memory:
        return []
    series = [rank.step_peaks_bytes or [rank.peak_bytes] for rank in record.memory]
    return [max(step) for step in zip(*series, strict=False)]


def changed(before: Record, after: Record) -> list[Difference]:
    """The differences between the two runs: code, environment and resolved settings."""
    return differences(*([surroundings(side) | resolved(side)] for side in (before, after)))


def document(before: Record, after: Record) -> dict[str, Any]:
    """The comparison in JSON types."""
    all_lines = lines(before, after)
    return {
        "cell_id": before.cell_id,
        "sweep_id": before.sweep_id,
        "again": {"cell_id": after.cell_id, "sweep_id": after.sweep_id},
        "reproduced": not failed(all_lines),
        "failed": failed(all_lines),
        "figures": [dataclasses.asdict(line) for line in all_lines],
        "differences": [dataclasses.asdict(entry) for entry in changed(before, after)],
    }


def markdown(before: Record, after: Record) -> str:
    """The comparison for a reader."""
    text_lines = [f"# {before.cell_id} again", "", f"**{summary(before, after)}**", ""]
    text_lines += ["| figure | then | now | | decides |", "| --- | --- | --- | --- | --- |"]
    for line in lines(before, after):
        row = (line.figure, line.then, line.now, line.verdict, "yes" if line.decides else "")
        text_lines.append(f"| {' | '.join(_cell(word) for word in row)} |")
    entries = changed(before, after)
    text_lines += ["", "## What differs in code and environment", ""]
    text_lines += [f"- {_cell(entry.name)}: {_cell(entry.then)} then, {_cell(entry.now)} now" for entry in entries]
    return "\n".join([*text_lines, *([] if entries else ["Nothing that the records hold."])]) + "\n"


def summary(before: Record, after: Record) -> str:
    """The summary, in a line."""
    all_lines = lines(before, after)
    outside = [line.figure for line in all_lines if line.verdict == "outside"]
    noted = f" Outside of the record's range: {', '.join(outside)}." if outside else ""
    if figures := failed(all_lines):
        return f"Not reproduced: {', '.join(figures)} differ{'s' if len(figures) == 1 else ''}.{noted}"
    bitwise = "bit by bit" if before.config.get("deterministic") else "as far as deterministic=false promises"
    return f"Reproduced, {bitwise}.{noted}"


def _cell(text: str) -> str:
    """Text of a record as it may stand in a table: no markup, no line of its own."""
    return " ".join(text.replace("|", "/").replace("<", "&lt;").split())
