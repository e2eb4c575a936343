"""Paired launches: the ratio of two sides round by round, with an interval that assumes nothing of the noise.

Value: Hodges and Lehmann's estimate, the median of all Walsh averages (d_i + d_j)/2, i <= j, of the logarithms d_i of
the rounds' ratios. Interval: what Wilcoxon's signed-rank test does not reject (Hollander, Wolfe and Chicken,
Nonparametric Statistical Methods, 3.1 to 3.3). The test is exact where, without a difference between the sides, each
d_i is as likely to have either sign. The order that is drawn again for each pair sees to that, however heavy the tails
and whatever the drift; no distribution is assumed.

No interval over n rounds can leave out 1 with more certainty than all n rounds on one side of it give: 2^-n a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, log2, nan

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.medians import NOTHING, Floats, Interval


def logs_of_ratios(first: Sequence[float], second: Sequence[float]) -> Floats:
    """Logarithms of second over first, round by round."""
    logs: Floats = np.log(np.asarray(second, dtype=np.float64)) - np.log(np.asarray(first, dtype=np.float64))
    return logs


def ratio_interval(logs: Sequence[float] | Floats, one_sided: float) -> Interval:
    """The ratio, and the interval whose either end is passed by the truth with probability ``one_sided`` at most.

    With fewer rounds than that takes, the interval is the whole range, and its level says what it attains.
    """
    values = np.asarray(logs, dtype=np.float64)
    if values.size == 0:
        return NOTHING
    averages = np.sort(walsh(values[None, :])[0])
    value = float(np.exp(np.median(averages)))
    if values.size < 2:
        return Interval(value, nan, nan, 0.0, values.size)
    cut = max(0, left_out(values.size, one_sided))
    low, high = (float(np.exp(averages[at])) for at in (cut, -1 - cut))
    return Interval(value, low, high, 1 - 2 * float(rank_sum_distribution(values.size)[cut]), values.size)


def walsh(rows: Floats) -> Floats:
    """The Walsh averages of each row of logarithms."""
    first, second = np.triu_indices(rows.shape[1])
    averages: Floats = (rows[:, first] + rows[:, second]) / 2
    return averages


def left_out(rounds: int, one_sided: float) -> int:
    """Number of Walsh averages outside of either end of the interval; -1 where there are too few rounds."""
    return int(np.searchsorted(rank_sum_distribution(rounds), one_sided, side="right")) - 1


@lru_cache(maxsize=256)
def rank_sum_distribution(rounds: int) -> NDArray[np.float64]:
    """P(W <= w) for w = 0, 1, ...: W adds up each of the ranks 1 to ``rounds`` with probability 1/2.

    scipy's Wilcoxon test has it, but returns p-values only, from which an interval cannot be read.
    """
    chances = np.ones(1)
    for rank in range(1, rounds + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    distribution: NDArray[np.float64] = np.cumsum(chances)
    return distribution


def least_rounds(one_sided: float) -> int:
    """The fewest rounds that can show a difference: 2^-n must not exceed ``one_sided``."""
    return ceil(-log2(one_sided))
