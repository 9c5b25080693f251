"""Multi-task performance: signs, mean and error messages."""

from __future__ import annotations

import math

import pytest

from densemtl.errors import ResultsError
from densemtl.metrics.delta_m import compute_delta_m, compute_task_deltas

HIGHER_IS_BETTER = {"semseg": True, "depth": False}
SINGLE = {"semseg": 40.0, "depth": 0.5}


@pytest.mark.parametrize(
    ("multi", "expected"),
    [
        ({"semseg": 40.0, "depth": 0.5}, {"semseg": 0, "depth": 0}),
        ({"semseg": 44.0, "depth": 0.5}, {"semseg": 10, "depth": 0}),
        ({"semseg": 40.0, "depth": 0.6}, {"semseg": 0, "depth": -20}),
        ({"semseg": 36.0, "depth": 0.4}, {"semseg": -10, "depth": 20}),
    ],
)
def test_improvements_are_positive_for_both_metric_directions(multi, expected):
    assert compute_task_deltas(multi, SINGLE, HIGHER_IS_BETTER) == pytest.approx(expected)
    delta_m = compute_delta_m(multi, SINGLE, HIGHER_IS_BETTER)
    assert delta_m == pytest.approx(sum(expected.values()) / 2)


def test_delta_m_matches_published_value():
    """Hard sharing on NYUD-v2, ResNet-50 (Vandenhende et al. 2021): +0.41 from rounded metrics."""
    multi, single = {"semseg": 44.4, "depth": 0.587}, {"semseg": 43.9, "depth": 0.585}
    assert compute_delta_m(multi, single, HIGHER_IS_BETTER) == pytest.approx(0.41, abs=0.03)


@pytest.mark.parametrize(
    ("multi", "single", "message"),
    [
        ({}, {}, "at least one task"),
        ({"semseg": 1.0, "depth": 1.0}, {"semseg": 1.0}, "single-task result for: depth"),
        ({"semseg": 1.0}, SINGLE, "multi-task run has no depth"),
        ({"normals": 1.0}, {"normals": 1.0}, "direction for: normals"),
        ({"semseg": math.nan}, {"semseg": 1.0}, "cannot compare nan with 1.0 for 'semseg'"),
        ({"semseg": 1.0}, {"semseg": math.inf}, "cannot compare 1.0 with inf"),
        ({"semseg": 1.0}, {"semseg": 0.0}, "cannot compare 1.0 with 0.0"),
    ],
)
def test_incomparable_results_raise_an_error(multi, single, message):
    with pytest.raises(ResultsError, match=message):
        compute_delta_m(multi, single, HIGHER_IS_BETTER)
