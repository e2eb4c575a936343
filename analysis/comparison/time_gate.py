"""The time gate's verdicts: which cells are slower by more than the margin, with few false alarms over all of them.

A cell is slower where both hold: its ratio is at least 1 + margin, and its interval leaves out 1. The intervals are so
wide that of gates without a difference at most FALSE_ALARMS find any cell slower: each cell has an equal share of that
(Bonferroni).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist, fmean

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.comparison import verdict as verdicts
from analysis.comparison.compare import environment_differences, verdict_words
from analysis.comparison.exact_quantities import by_rank
from analysis.comparison.verdict import STYLES, Comparison, Pair, Row, Verdict, cell_table, ratio_texts, telling
from analysis.metrics.rounds import in_shared_rounds
from analysis.metrics.scaling import is_ranked
from analysis.metrics.traffic import ledgers
from analysis.statistics import medians, paired
from analysis.statistics.medians import Interval
from analysis.text.labels import label
from analysis.text.units import counted, is_finite, ms
from results.identity import as_written, settings_of
from results.launches import Collective, Launch
from results.record import Record

MARGIN = 0.02
"""A smaller change of the step time is none."""
FALSE_ALARMS = 0.01
POWER = 0.8
MORE_PEAK = 0.01
"""A peak that is larger by more than this share is more memory: less may be an allocator's rounding."""


def judge_all(pairs: Sequence[Pair], margin: float = MARGIN) -> list[Comparison]:
    """The verdict on each pair, first against second, as one gate."""
    compared = sum(is_ranked(pair.first) and is_ranked(pair.second) for pair in pairs)
    return [judge(pair, margin, FALSE_ALARMS / max(1, compared)) for pair in pairs]


def least_rounds(cells: int) -> int:
    """The fewest rounds with which a gate of so many cells can find anything."""
    return paired.least_rounds(FALSE_ALARMS / cells)


def judge(pair: Pair, margin: float, one_sided: float) -> Comparison:
    peak = steady_peak_bytes(pair.second) / steady_peak_bytes(pair.first)
    if not is_ranked(pair.first) or not is_ranked(pair.second):
        verdict: Verdict = "broken" if is_broken(pair) else "not compared"
        return Comparison(pair, verdict, medians.NOTHING, None, peak)
    first, second = in_shared_rounds(pair.first, pair.second, per_step_s)
    step = paired.ratio_interval(paired.logs_of_ratios(first, second), one_sided)
    verdict = verdicts.judge(step, margin, least=margin, rounds=paired.least_rounds(one_sided))
    needed = rounds_needed(step, margin, one_sided) if verdict == "cannot tell" else None
    return Comparison(
        pair,
        verdict,
        step,
        needed,
        peak,
        detectable=detectable(step, margin, one_sided),
        exact=collectives_that_differ(pair),
        more=peak > 1 + MORE_PEAK or sends_more(pair),
    )


def is_broken(pair: Pair) -> bool:
    """Whether the first side runs, as far as it came, and the second does not."""
    first, second = pair.first, pair.second
    sound = is_ranked(first) or (first.status == "interrupted" and first.model is not None)
    return sound and not is_ranked(second) and second.status != "interrupted"


def steady_peak_bytes(record: Record) -> float:
    """The largest peak of any rank; NaN where it was not counted, or where it is not the same in each watched step.

    A communication thread frees buffers at varying times, so the peak of one launch cannot be attributed to the code.
    """
    peaks = [rank.step_peaks_bytes or [rank.peak_bytes] for rank in record.memory]
    if not peaks or any(min(steps) != max(steps) for steps in peaks):
        return math.nan
    return float(max(steps[0] for steps in peaks)) or math.nan


def per_step_s(record: Record, launch: Launch) -> float:
    """The launch's statistic: the mean step, each step being its slowest rank's.

    The mean, where reports have the median: a step that is slow one time in five is slower too.
    """
    steps = launch.step_times_s()
    return math.fsum(steps) / len(steps)


def reach(one_sided: float) -> float:
    """Half widths of the interval by which the truth must differ to be found with POWER, for a normal estimate."""
    return 1 + NormalDist().inv_cdf(POWER) / NormalDist().inv_cdf(1 - one_sided)


def half_width(step: Interval) -> float:
    """Of the interval of the logarithm, on the wider side."""
    return max(math.log(step.high / step.value), math.log(step.value / step.low))


def detectable(step: Interval, margin: float, one_sided: float) -> float:
    """The smallest slowdown that so many rounds, so noisy, find with POWER; NaN where they can find none."""
    if not is_finite(step.low) or step.launches < paired.least_rounds(one_sided):
        return math.nan
    half = half_width(step)
    deviation = half * (reach(one_sided) - 1)
    return math.expm1(max(half + deviation, math.log1p(margin) + deviation))


def rounds_needed(step: Interval, margin: float, one_sided: float) -> int | None:
    """Rounds that would mostly detect a change of the margin: the half width falls with their square root."""
    if not is_finite(step.low):
        return None
    wanted = step.launches * (half_width(step) * reach(one_sided) / math.log1p(margin)) ** 2
    return max(paired.least_rounds(one_sided), step.launches + 1, math.ceil(wanted))


def collectives_that_differ(pair: Pair) -> list[str]:
    """Collectives of a step that one side has more of, such as ``all_reduce of 1 float32 over 2 ranks: 0, now 1``.

    Where ranks differ, theirs in order: ``1, now 1 | 5``.
    """
    sides = [[_counts(ledger) for ledger in ledgers(record)] for record in (pair.first, pair.second)]
    lines = []
    for call in sorted({call for side in sides for counts in side for call in counts}):
        kind, dtype, elements, ranks = call
        before, now = (by_rank([counts[call] for counts in side]) for side in sides)
        if before != now:
            lines.append(f"{kind} of {elements:,} {dtype} over {counted(ranks, 'rank')}: {before}, now {now} a step")
    return lines


def sends_more(pair: Pair) -> bool:
    """Whether ranks of the second side call more collectives in a step or send more bytes: their mean, or the most."""
    if pair.first.collectives is None or pair.second.collectives is None:
        return False
    return any(now > before for before, now in zip(_traffic(pair.first), _traffic(pair.second), strict=True))


def _traffic(record: Record) -> list[float]:
    """The calls of a step and the bytes that a rank sends in it, each as the ranks' mean and their most.

    Rounded, since the order of a sum is no difference.
    """
    steps = record.config.get("local_steps") or 1
    calls = [sum(line.count for line in ledger) / steps for ledger in ledgers(record)]
    sent = [math.fsum(map(_bytes, ledger)) / steps for ledger in ledgers(record)]
    return [round(value, 3) for ranks in (calls, sent) for value in (fmean(ranks), max(ranks))]


def _bytes(line: Collective) -> float:
    """Bytes that a rank sends for all collectives of a line; the arrays' own bytes where the kind is unknown."""
    sent = line.sent_bytes
    return line.total_bytes if sent is None else sent


def _counts(lines: Sequence[Collective]) -> Counter[tuple[str, str, int, int]]:
    counts: Counter[tuple[str, str, int, int]] = Counter()
    for line in lines:
        counts[line.kind, line.dtype, line.elements, line.group_size] += line.count
    return counts


def show(outcomes: Sequence[Comparison], sides: tuple[str, str], margin: float, out: Console) -> None:
    """Prints the environment's differences, a row per cell, what needs no statistics, and a summary."""
    for line in environment_differences([outcome.pair for outcome in outcomes]):
        out.print(Text(f"differs: {line}", style="yellow"), soft_wrap=True)
    names = telling([outcome.pair.first for outcome in outcomes])
    out.print(table(outcomes, names, sides))
    for outcome in outcomes:
        for line in [*settings_that_differ(outcome.pair), *outcome.exact]:
            out.print(Text(f"{named(outcome.pair, names)}: {line}", style="yellow"), soft_wrap=True)
    for line in summary(outcomes, sides, margin):
        out.print(Text(line), soft_wrap=True)


def table(outcomes: Sequence[Comparison], names: Sequence[str], sides: tuple[str, str]) -> Table:
    columns = (*(f"{side} ms" for side in sides), "step ×", "interval", "peak ×", "finds", "verdict")
    rows = []
    for outcome in outcomes:
        share, step = outcome.detectable, outcome.step
        texts = (
            *(ms(step_s(side)) for side in (outcome.pair.first, outcome.pair.second)),
            *ratio_texts(step),
            f"{outcome.peak:.3f}" if is_finite(outcome.peak) else "",
            f"{100 * share:.1f} %" if is_finite(share) else "nothing" if is_finite(step.low) else "",
            words(outcome),
        )
        rows.append(
            Row(settings_of(outcome.pair.first), texts, "red" if outcome.more else STYLES.get(outcome.verdict, ""))
        )
    return cell_table(names, columns, rows, ("verdict",))


def words(outcome: Comparison) -> str:
    text = verdict_words(outcome)
    if outcome.peak > 1 + MORE_PEAK:
        text += ", more memory"
    return f"{text}, sends more" if sends_more(outcome.pair) else text


def step_s(record: Record) -> float:
    """The mean step of a middling launch, in seconds; NaN without launches."""
    return medians.median_interval([per_step_s(record, launch) for launch in record.launches]).value


def named(pair: Pair, names: Sequence[str]) -> str:
    return ", ".join(label(name, settings_of(pair.first).get(name)) for name in names)


def settings_that_differ(pair: Pair) -> list[str]:
    """Settings that either code makes of the same overrides, such as ``engine.in_flight: null, now 4``."""
    first, second = settings_of(pair.first), settings_of(pair.second)
    return [
        f"{name}: {as_written(first.get(name))}, now {as_written(second.get(name))}"
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]


def summary(outcomes: Sequence[Comparison], sides: tuple[str, str], margin: float) -> list[str]:
    """The summary of the table, in lines."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    parts = [f"{count} {verdict}" for verdict, count in counts.items()]
    parts += (
        [f"{count} worse without being slower"]
        if (count := sum(outcome.more and outcome.verdict not in ("slower", "broken") for outcome in outcomes))
        else []
    )
    levels = [outcome.step.level for outcome in outcomes if is_finite(outcome.step.low)]
    level = f" ({100 * min(levels):.4g} %)" if levels else ""
    lines = [
        f"{counted(len(outcomes), 'configuration')}, {sides[1]} against {sides[0]}: {', '.join(parts)}. "
        f"Slower: by {100 * margin:g} % or more, and the interval{level} leaves out 1."
    ]
    if unclear := [outcome.needed or 0 for outcome in outcomes if outcome.verdict == "cannot tell"]:
        lines.append(
            f"warning: {counted(len(unclear), 'configuration')} cannot be judged; use about repeats={max(unclear)}"
            if max(unclear)
            else f"warning: {counted(len(unclear), 'configuration')} cannot be judged from so few launches"
        )
    return lines
