"""Whether an architecture differs from another one, told from runs that share their seeds.

Runs of one seed share the order of images, the augmentation and the single-task references, so
that their difference varies less from seed to seed than either number does. Hence everything here
is of the paired differences d_1 .. d_n, one a seed, with mean d and sample standard deviation s.

The t interval, d +- t(n - 1) s / sqrt(n), is exact for normal differences, and the only one that
means anything for a handful of seeds. The bootstrap-t interval (Efron and Tibshirani 1993, "An
Introduction to the Bootstrap", chapter 12) needs no normality: it reads the quantiles of the
studentised mean off resampled seeds. The simpler percentile interval is left out, as it is too
narrow by about sqrt((n - 1) / n) and a normal in place of a t quantile (Hesterberg 2015, "What
teachers should know about the bootstrap", The American Statistician 69(4)): with two seeds it
holds the truth every second time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
FEWEST = 5
"""Seeds that a bootstrap needs: of four, resamples without spread reach into the tails."""

Interval = tuple[float, float]
Verdict = Literal["better", "worse", "inside the noise", "one seed: no spread known"]


@dataclass(frozen=True)
class Difference:
    """Of one metric between two architectures.

    Attributes:
        seeds: that both have.
        mean: of the paired differences.
        t: confidence interval of the mean; None for one seed.
        bootstrap: likewise; None for fewer than `FEWEST` seeds or differences that are all equal.
        verdict: "better" or "worse" only where every interval there is leaves out zero.
    """

    seeds: int
    mean: float
    t: Interval | None
    bootstrap: Interval | None
    verdict: Verdict


def compare(values: Sequence[float], higher_is_better: bool) -> Difference:
    """Judge paired differences.

    Args:
        values: one a seed, ours minus theirs; at least one.
        higher_is_better: whether a positive difference is to our credit.
    """
    differences = np.asarray(values, np.float64)
    intervals = t_interval(differences), bootstrap_interval(differences)
    return Difference(
        seeds=len(differences),
        mean=float(differences.mean()),
        t=intervals[0],
        bootstrap=intervals[1],
        verdict=_verdict([each for each in intervals if each is not None], higher_is_better),
    )


def _verdict(intervals: Sequence[Interval], higher_is_better: bool) -> Verdict:
    if not intervals:
        return "one seed: no spread known"
    above = all(low > 0 for low, _ in intervals)
    below = all(high < 0 for _, high in intervals)
    if not above and not below:
        return "inside the noise"
    return "better" if above == higher_is_better else "worse"


def t_interval(differences: NDArray[np.float64]) -> Interval | None:
    """Student's, of the mean of paired differences; None for a single one."""
    count = len(differences)
    if count < 2:
        return None
    mean = float(differences.mean())
    reach = t_quantile(count) * float(differences.std(ddof=1)) / math.sqrt(count)
    return mean - reach, mean + reach


def t_quantile(count: int) -> float:
    """Of so many differences: what bounds the middle `LEVEL` of Student's t."""
    from scipy import stats

    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1))


def smallest_effect(count: int) -> float:
    """How many of their standard deviations differences must be off zero on average to count."""
    return t_quantile(count) / math.sqrt(count)


def bootstrap_interval(differences: NDArray[np.float64]) -> Interval | None:
    """Bootstrap-t, of the mean of paired differences.

    A resample without spread has an infinite t, which can only widen the interval. The same seeds
    are drawn at every call, so that a report can be repeated.
    """
    count = len(differences)
    spread = float(differences.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    if count < FEWEST or spread == 0:
        return None
    mean = float(differences.mean())
    studentised = _studentised(differences, mean)
    low = float(np.quantile(studentised, (1 - LEVEL) / 2, method="lower"))
    high = float(np.quantile(studentised, (1 + LEVEL) / 2, method="higher"))
    return mean - high * spread, mean - low * spread


def _studentised(differences: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Student's t of every resample about the sample's own mean."""
    count = len(differences)
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    resampled = differences[drawn]
    off = resampled.mean(axis=1) - mean
    spread = resampled.std(axis=1, ddof=1) / math.sqrt(count)
    same = (drawn == drawn[:, :1]).all(axis=1) | (spread == 0)
    infinite = np.where(off == 0, 0.0, np.copysign(np.inf, off))
    return np.where(same, infinite, off / np.where(same, 1.0, spread))
