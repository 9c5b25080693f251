"""Confidence intervals of the difference between two groups of runs with equal seeds.

Runs of one seed share the order of images, the augmentation and the single-task baselines, so
their difference varies less from seed to seed than either metric. All intervals are therefore of
the paired differences d_1 .. d_n, one per seed, with mean d and sample standard deviation s.

The t interval, d +- t(n - 1) s / sqrt(n), is exact for normal differences, and the only one that
is meaningful for few seeds. The bootstrap-t interval (Efron and Tibshirani 1993, "An Introduction
to the Bootstrap", chapter 12) assumes no normality: it uses the quantiles of the studentized mean
of resampled seeds. The simpler percentile interval is too narrow, by about sqrt((n - 1) / n) and by
a normal instead of a t quantile (Hesterberg 2015, "What teachers should know about the bootstrap",
The American Statistician 69(4)): with two seeds it covers the true value only half of the time.
`scipy.stats.bootstrap` has no bootstrap-t interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CONFIDENCE_LEVEL = 0.95
"""Confidence level of both intervals."""

NUM_RESAMPLES = 10_000
"""Number of bootstrap resamples."""

MIN_BOOTSTRAP_SEEDS = 5
"""Minimum number of seeds for the bootstrap-t interval.

With four seeds, resamples without spread are frequent enough to reach the quantiles used.
"""

Interval = tuple[float, float]
"""(lower end, upper end)."""

Verdict = Literal["better", "worse", "not significant", "one seed: no spread known"]


@dataclass(frozen=True)
class PairedDifference:
    """Difference of one metric between two groups of runs.

    Attributes:
        num_seeds: number of seeds that both groups have.
        mean: mean of the paired differences.
        t_interval: Student's t interval of the mean; None for one seed.
        bootstrap_interval: bootstrap-t interval of the mean; None for fewer than
            `MIN_BOOTSTRAP_SEEDS` seeds or if all differences are equal.
        verdict: "better" or "worse" only if every available interval excludes zero.
    """

    num_seeds: int
    mean: float
    t_interval: Interval | None
    bootstrap_interval: Interval | None
    verdict: Verdict


def judge_differences(values: Sequence[float], higher_is_better: bool) -> PairedDifference:
    """Compute the intervals and the verdict of paired differences.

    Args:
        values: metric minus the reference's metric, one value per seed; at least one.
        higher_is_better: whether a positive difference is an improvement.

    Returns:
        The mean, both intervals and the verdict.
    """
    differences = np.asarray(values, np.float64)
    intervals = compute_t_interval(differences), compute_bootstrap_interval(differences)
    return PairedDifference(
        num_seeds=len(differences),
        mean=float(differences.mean()),
        t_interval=intervals[0],
        bootstrap_interval=intervals[1],
        verdict=_judge_intervals(
            [interval for interval in intervals if interval is not None], higher_is_better
        ),
    )


def _judge_intervals(intervals: Sequence[Interval], higher_is_better: bool) -> Verdict:
    if not intervals:
        return "one seed: no spread known"
    above = all(low > 0 for low, _ in intervals)
    below = all(high < 0 for _, high in intervals)
    if not above and not below:
        return "not significant"
    return "better" if above == higher_is_better else "worse"


def compute_t_interval(differences: NDArray[np.float64]) -> Interval | None:
    """Compute Student's t interval of the mean of paired differences.

    Args:
        differences: one difference per seed, shape (n,).

    Returns:
        The interval at `CONFIDENCE_LEVEL`; None for one difference.
    """
    count = len(differences)
    if count < 2:
        return None
    mean = float(differences.mean())
    margin = compute_t_quantile(count) * float(differences.std(ddof=1)) / math.sqrt(count)
    return mean - margin, mean + margin


def compute_t_quantile(count: int) -> float:
    """Compute the two-sided quantile of Student's t at `CONFIDENCE_LEVEL`.

    Args:
        count: number of differences, at least 2; the degrees of freedom are one less.

    Returns:
        The quantile.
    """
    from scipy import stats  # a local import, because it takes a second

    return float(stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, count - 1))


def compute_smallest_effect(count: int) -> float:
    """Compute the smallest significant mean difference of a t interval.

    Args:
        count: number of differences, at least 2.

    Returns:
        The mean difference as a multiple of its standard deviation over seeds.
    """
    return compute_t_quantile(count) / math.sqrt(count)


def compute_bootstrap_interval(differences: NDArray[np.float64]) -> Interval | None:
    """Compute the bootstrap-t interval of the mean of paired differences.

    A resample without spread has an infinite t, which can only widen the interval. Every call draws
    the same resamples, so that a report is reproducible.

    Args:
        differences: one difference per seed, shape (n,).

    Returns:
        The interval at `CONFIDENCE_LEVEL`; None for fewer than `MIN_BOOTSTRAP_SEEDS` differences or
        if all differences are equal.
    """
    count = len(differences)
    standard_error = float(differences.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    if count < MIN_BOOTSTRAP_SEEDS or standard_error == 0:
        return None
    mean = float(differences.mean())
    studentized = _studentized(differences, mean)
    low = float(np.quantile(studentized, (1 - CONFIDENCE_LEVEL) / 2, method="lower"))
    high = float(np.quantile(studentized, (1 + CONFIDENCE_LEVEL) / 2, method="higher"))
    return mean - high * standard_error, mean - low * standard_error


def _studentized(differences: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Return Student's t of every resample about the mean of the sample."""
    count = len(differences)
    drawn = np.random.default_rng(0).integers(count, size=(NUM_RESAMPLES, count))
    resampled = differences[drawn]
    off = resampled.mean(axis=1) - mean
    standard_error = resampled.std(axis=1, ddof=1) / math.sqrt(count)
    same = (drawn == drawn[:, :1]).all(axis=1) | (standard_error == 0)
    infinite = np.where(off == 0, 0.0, np.copysign(np.inf, off))
    return np.where(same, infinite, off / np.where(same, 1.0, standard_error))
