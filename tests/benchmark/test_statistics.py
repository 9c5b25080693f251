"""Tests of intervals of paired differences against hand calculations and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from densemtl.benchmark.statistics import (
    MIN_BOOTSTRAP_SEEDS,
    compute_bootstrap_interval,
    compute_smallest_effect,
    compute_t_interval,
    judge_differences,
)

FIVE = [1.0, 2.0, 4.0, 5.0, 8.0]


def test_one_seed_has_no_interval() -> None:
    one = judge_differences([3.0], True)
    assert (one.num_seeds, one.mean, one.t_interval, one.bootstrap_interval) == (1, 3.0, None, None)
    assert one.verdict == "one seed: no spread known"


def test_t_interval_of_two_seeds_equals_a_hand_calculation() -> None:
    """The t quantile of two seeds is tan(0.475 pi) = 12.706 (Cauchy), and s / sqrt(2) is 1."""
    low, high = compute_t_interval(np.array([1.0, 3.0]))
    margin = math.tan(0.475 * math.pi)
    assert (low, high) == pytest.approx((2 - margin, 2 + margin))


def test_t_interval_of_three_seeds_equals_a_hand_calculation() -> None:
    """Tables of Student's t give t(2) = 4.303; the values 1, 2, 3 have s = 1."""
    assert compute_t_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx(
        (2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)), abs=1e-3
    )


@pytest.mark.parametrize(
    ("values", "higher_is_better", "verdict"),
    [
        ([1.0, 1.1, 0.9], True, "better"),
        ([1.0, 1.1, 0.9], False, "worse"),
        ([-1.0, -1.1, -0.9], True, "worse"),
        ([-1.0, -1.1, -0.9], False, "better"),
        ([1.0, -1.1, 0.9], True, "not significant"),
        ([1.0, 1.5], True, "not significant"),
        ([0.0, 0.0], True, "not significant"),
        ([0.5, 0.5], True, "better"),
        (FIVE, True, "better"),
    ],
)
def test_verdict_needs_an_interval_without_zero(
    values: list[float], higher_is_better: bool, verdict: str
) -> None:
    assert judge_differences(values, higher_is_better).verdict == verdict


def test_smallest_effect_is_the_threshold_of_significance() -> None:
    standard = np.array([-1.0, 0.0, 1.0])
    for factor, verdict in ((0.99, "not significant"), (1.01, "better")):
        values = standard + factor * compute_smallest_effect(3)
        assert judge_differences(list(values), True).verdict == verdict


def test_bootstrap_interval_needs_enough_seeds_and_spread() -> None:
    assert compute_bootstrap_interval(np.arange(MIN_BOOTSTRAP_SEEDS - 1.0)) is None
    assert compute_bootstrap_interval(np.full(MIN_BOOTSTRAP_SEEDS, 0.1)) is None
    assert compute_bootstrap_interval(np.arange(float(MIN_BOOTSTRAP_SEEDS))) is not None


def test_verdict_requires_that_both_intervals_exclude_zero() -> None:
    """One of seven values is an outlier: the t interval excludes zero, the bootstrap does not."""
    values = [0.10, 0.12, 0.08, 0.11, -0.09, 0.1, 0.1]
    difference = judge_differences(values, True)
    assert difference.t_interval is not None
    assert difference.bootstrap_interval is not None
    assert difference.t_interval[0] > 0 > difference.bootstrap_interval[0]
    assert difference.verdict == "not significant"


def test_exchanging_groups_negates_the_intervals() -> None:
    difference, exchanged = (
        judge_differences(FIVE, True),
        judge_differences([-value for value in FIVE], True),
    )
    assert exchanged.mean == -difference.mean
    for name in ("t_interval", "bootstrap_interval"):
        low, high = getattr(difference, name)
        assert getattr(exchanged, name) == pytest.approx((-high, -low), rel=1e-9)


def test_intervals_scale_with_the_unit() -> None:
    plain, scaled = (
        judge_differences(FIVE, True),
        judge_differences([100 * value for value in FIVE], True),
    )
    for name in ("t_interval", "bootstrap_interval"):
        expected = tuple(100 * end for end in getattr(plain, name))
        assert getattr(scaled, name) == pytest.approx(expected)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_t_interval_has_nominal_coverage(count: int) -> None:
    samples = np.random.default_rng(1).normal(0.3, 2, (2000, count))
    covered = [low <= 0.3 <= high for low, high in map(compute_t_interval, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("count", [5, 10])
def test_bootstrap_interval_has_nominal_coverage(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densemtl.benchmark.statistics.NUM_RESAMPLES", 1000)
    samples = np.random.default_rng(1).normal(0.3, 2, (600, count))
    covered = [low <= 0.3 <= high for low, high in map(compute_bootstrap_interval, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)
