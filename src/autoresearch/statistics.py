"""The statistics behind the judge: noise within commits, an interval for a difference, Student's t.

Pure functions of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean

from autoresearch.records import Metric


def pooled_noise(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """(sd of one run, degrees of freedom) from runs grouped by commit: the spread within groups.

    (0.0, 0) when no group has two runs.
    """
    df = sum(len(group) - 1 for group in groups if group)
    if df == 0:
        return 0.0, 0
    total = 0.0
    for group in groups:
        if group:
            centre = fmean(group)
            total += sum((value - centre) ** 2 for value in group)
    return math.sqrt(total / df), df


def difference_interval(
    metric: Metric, new: Sequence[float], old: Sequence[float], confidence: float = 0.95
) -> tuple[float, float, float]:
    """(gain, low, high): Welch's interval for the gain of `new` over `old`, in metric units.

    The degrees of freedom are rounded down, which widens it. Needs two runs on each side.
    """
    gain = metric.gain(fmean(new), fmean(old))
    squares = [_variance(side) / len(side) for side in (new, old)]
    total = sum(squares)
    if total == 0:
        return gain, gain, gain
    df = total**2 / sum(s**2 / (len(side) - 1) for s, side in zip(squares, (new, old), strict=True))
    half = t_quantile((1 + confidence) / 2, max(1, math.floor(df))) * math.sqrt(total)
    return gain, gain - half, gain + half


def _variance(values: Sequence[float]) -> float:
    centre = fmean(values)
    return sum((value - centre) ** 2 for value in values) / (len(values) - 1)


@lru_cache(maxsize=256)
def t_quantile(p: float, df: int) -> float:
    """The p-quantile of Student's t, for 0.5 <= p < 1 and df >= 1, by bisection on its
    distribution. Raises `ValueError` where nothing is known of the noise (df < 1)."""
    if df < 1:
        raise ValueError("the noise is unknown: two runs of one commit are needed")
    low, high = 0.0, 1.0
    while t_cdf(high, df) < p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def t_cdf(t: float, df: int) -> float:
    """P(T <= t) of Student's t for whole degrees of freedom and t >= 0, by the finite series of
    Abramowitz and Stegun, 26.7.3 (odd) and 26.7.4 (even)."""
    theta = math.atan(t / math.sqrt(df))
    cos2 = math.cos(theta) ** 2
    if df % 2:
        term = total = math.cos(theta) if df > 1 else 0.0
        for j in range(3, df - 1, 2):
            term *= cos2 * (j - 1) / j
            total += term
        two_sided = 2 / math.pi * (theta + math.sin(theta) * total)
    else:
        term = total = 1.0
        for j in range(2, df - 1, 2):
            term *= cos2 * (j - 1) / j
            total += term
        two_sided = math.sin(theta) * total
    return (1 + two_sided) / 2
