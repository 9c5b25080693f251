"""Boundary F-measures, compared with values computed by hand and a reference implementation."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial.distance import cdist
from torchmetrics.utilities import dim_zero_sum

from densemtl.metrics.boundary.counts import count_boundary_matches
from densemtl.metrics.boundary.non_max_suppression import suppress_non_maxima
from densemtl.metrics.boundary.precision_recall import (
    compute_average_precision,
    compute_curve,
    compute_summary,
    select_best_counts,
)
from densemtl.metrics.boundary.protocols import make_even_thresholds
from densemtl.ops.region_boundaries import find_region_boundaries
from densemtl.ops.thinning import thin
from densemtl.types import IGNORE_INDEX
from tests.helpers.protocols import PROTOCOLS, boundary

SURVEY, MODERN = PROTOCOLS["survey"], PROTOCOLS["modern"]
FAR = 0.05


def picture(seed, size=(37, 51)):
    """Draw blurred and noisy probabilities and thin boundaries of two regions."""
    rng = np.random.default_rng(seed)
    regions = cv2.GaussianBlur(rng.random(size).astype(np.float32), (0, 0), 5)
    truth = find_region_boundaries((regions > np.median(regions)).astype(np.uint8))
    moved = np.roll(truth, rng.integers(-2, 3, 2), (0, 1)).astype(np.float32)
    blurred = cv2.GaussianBlur(moved, (0, 0), 1.5)
    probability = 0.8 * blurred / blurred.max() + 0.2 * rng.random(size)
    return probability.astype(np.float32), truth


def pictures(number=4):
    pairs = [picture(seed) for seed in range(number)]
    return (
        torch.stack([torch.as_tensor(probability) for probability, _ in pairs]),
        torch.stack([torch.as_tensor(truth.astype(np.uint8)) for _, truth in pairs]),
    )


def scores(metric, probability, target):
    metric.update(torch.as_tensor(probability), torch.as_tensor(target))
    return metric.compute_dict()


def hits(found, truth, radius):
    near = cdist(np.argwhere(found), np.argwhere(truth)) <= radius
    return (
        int((maximum_bipartite_matching(csr_array(near), "column") >= 0).sum()) if near.size else 0
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PROTOCOLS)
def test_counts_equal_reference(name, seed):
    probability, truth = picture(seed)
    counts = count_boundary_matches(probability, [truth], PROTOCOLS[name], FAR)
    radius = FAR * math.hypot(*truth.shape)
    for threshold, row in zip(PROTOCOLS[name].thresholds, counts, strict=True):
        if name == "modern":
            found = thin(
                suppress_non_maxima(np.round(255 * probability.astype(float)) / 255) > threshold
            )
        else:
            found = thin(probability >= np.float32(threshold))
        matched = hits(found, truth, radius)
        assert row.tolist() == [matched, found.sum(), matched, truth.sum()]


def test_thresholds_of_both_protocols():
    assert len(SURVEY.thresholds) == 99
    assert len(MODERN.thresholds) == 101
    assert SURVEY.thresholds[69] == 0.7
    assert MODERN.thresholds[:3] == (0.001, 0.01, 0.02)
    assert MODERN.thresholds[-2:] == (0.99, 0.999)


def test_probability_equal_to_the_threshold():
    """It is a boundary for `survey` only; `modern` rounds to multiples of 1 / 255 first."""
    probability = np.zeros((21, 21), np.float32)
    probability[10, 10] = 0.6
    truth = probability > 0
    survey, modern = (
        count_boundary_matches(probability, [truth], which, FAR) for which in (SURVEY, MODERN)
    )
    assert survey[58:61, 1].tolist() == [1, 1, 0]
    at_60 = MODERN.thresholds.index(0.6)
    assert modern[at_60 - 1 : at_60 + 1, 1].tolist() == [1, 0]
    probability[10, 10] = 0.6008  # rounds down to 153 / 255 = .6
    assert count_boundary_matches(probability, [truth], MODERN, FAR)[at_60, 1] == 0


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("size", [(33, 47), (64, 64), (41, 129)])
def test_perfect_prediction_scores_100(name, size):
    truth = picture(7, size)[1]
    # `modern` fades predictions at the border.
    truth[[0, -1]] = truth[:, [0, -1]] = False
    truth = thin(truth)
    found = scores(boundary(name), truth[None].astype(np.float32), truth[None].astype(np.uint8))
    assert found["odsF"] == found["oisF"] == 100


@pytest.mark.parametrize(("name", "lost"), [("survey", 0), ("modern", 2)])
def test_perfect_line_that_meets_the_border(name, lost):
    """`modern` sets predictions of the outermost pixels to 0, so that true pixels are missed."""
    truth = np.zeros((1, 33, 47), np.uint8)
    truth[0, :, 20] = 1
    found = scores(boundary(name), truth.astype(np.float32), truth)
    recall = (33 - lost) / 33
    assert found["odsF"] == pytest.approx(100 * 2 * recall / (1 + recall))


@pytest.mark.parametrize("regions", [False, True])
def test_perfect_prediction_of_region_boundaries_scores_100(regions):
    """If lines are read as regions, a prediction of the lines themselves is not perfect."""
    truth = np.zeros((1, 33, 47), np.uint8)
    truth[0, 8:25, 20] = 1
    found = scores(boundary("modern", regions=regions), truth.astype(np.float32), truth)
    assert (found["odsF"] == 100) is not regions
    between = find_region_boundaries(truth[0])[None]
    found = scores(boundary("modern", regions=True), between.astype(np.float32), truth)
    assert found["odsF"] == 100


@pytest.mark.parametrize("name", PROTOCOLS)
def test_empty_prediction_scores_0(name):
    truth = picture(0)[1][None].astype(np.uint8)
    assert scores(boundary(name), np.zeros(truth.shape), truth) == {"odsF": 0, "oisF": 0, "AP": 0}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_inverted_prediction_matches_only_nearby_pixels(name):
    """The inverted map is thinned to a few lines, which contain no true pixel."""
    truth = picture(0)[1][None].astype(np.uint8)
    exact = scores(boundary(name, max_distance=1e-6), (1 - truth).astype(np.float32), truth)
    assert exact == {"odsF": 0, "oisF": 0, "AP": 0}
    assert scores(boundary(name), (1 - truth).astype(np.float32), truth)["odsF"] < 50


@pytest.mark.parametrize("name", PROTOCOLS)
def test_predictions_without_true_boundaries_are_false_positives(name):
    probability, truth = picture(0)
    nothing = np.zeros((1, *truth.shape), np.uint8)
    assert all(
        math.isnan(value) for value in scores(boundary(name), nothing * 0.5, nothing).values()
    )
    both = np.stack([truth.astype(np.uint8), nothing[0]])
    alone = scores(boundary(name), probability[None], both[:1])
    assert scores(boundary(name), np.stack([probability] * 2), both)["odsF"] < alone["odsF"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_images_of_ignored_pixels_are_excluded(name):
    probability, target = pictures(3)
    expected = scores(boundary(name), probability, target)
    target = torch.cat([target, torch.full_like(target[:1], IGNORE_INDEX)])
    probability = torch.cat([probability, torch.ones_like(probability[:1])])
    assert scores(boundary(name), probability, target) == expected
    without_valid_pixels = scores(boundary(name), probability[3:], target[3:])
    assert all(math.isnan(value) for value in without_valid_pixels.values())
    without_images = scores(boundary(name), probability[:0], target[:0])
    assert all(math.isnan(value) for value in without_images.values())


def test_ignored_pixels_are_neither_predicted_nor_true():
    target = np.zeros((1, 20, 30), np.uint8)
    target[0, 5, 3:12] = 1
    probability = (target == 1).astype(np.float32)
    probability[0, 15, 3:25] = 1
    assert scores(boundary("survey"), probability, target)["odsF"] < 60
    target[0, 12:18] = IGNORE_INDEX
    assert scores(boundary("survey"), probability, target)["odsF"] == 100


def test_ignored_pixels_are_removed_after_thinning():
    probability = np.zeros((30, 40), np.float32)
    probability[10:15, 5:35] = 1
    valid = np.ones((30, 40), bool)
    valid[13:] = False
    truth = np.zeros((30, 40), bool)
    truth[12, 10:30] = True
    assert count_boundary_matches(probability, [truth], SURVEY, 0.001, valid)[50, 2] == 20


def test_regions_have_no_boundary_to_ignored_pixels():
    target = np.zeros((1, 20, 30), np.uint8)
    target[0, :, 10:] = 1
    target[0, 8:, :] = IGNORE_INDEX
    metric = boundary("survey", regions=True)
    metric.update(torch.zeros(1, 20, 30), torch.as_tensor(target))
    assert 5 <= metric.total[0, 3] <= 8


@pytest.mark.parametrize("name", PROTOCOLS)
def test_scores_of_one_pixel(name):
    target = np.zeros((1, 15, 15), np.uint8)
    target[0, 7, 7] = 1
    assert scores(boundary(name), target.astype(np.float32), target)["odsF"] == 100
    smallest = np.ones((1, 1, 1), np.uint8)
    assert scores(boundary("survey"), smallest.astype(np.float32), smallest)["odsF"] == 100


def test_regions_are_converted_to_boundaries():
    target = np.zeros((1, 20, 20), np.uint8)
    target[0, :, 11:] = 1
    probability = np.zeros((1, 20, 20), np.float32)
    probability[0, :, 10] = 1
    assert scores(boundary("survey", regions=True), probability, target)["odsF"] == 100
    assert scores(boundary("survey"), probability, target)["odsF"] < 40


def test_max_distance_is_a_fraction_of_the_diagonal():
    target = np.zeros((1, 30, 40), np.uint8)  # the diagonal is 50
    target[0, 15, 5] = 1
    probability = np.zeros((1, 30, 40), np.float32)
    probability[0, 15, 10] = 1
    reached = [
        scores(boundary("survey", max_distance=share), probability, target)["odsF"]
        for share in (0.1, 0.099)
    ]
    assert reached == [100, 0]


def lines(*rows):
    mask = np.zeros((40, 60), bool)
    for row in rows:
        mask[row, 10:50] = True
    return mask


def test_counts_of_several_annotators():
    """Lines 10 and 20 are predicted; one annotator has line 10, the other has lines 10 and 30.

    One of the two predicted lines and two of the three true lines are matched.
    """
    counts = count_boundary_matches(
        lines(10, 20).astype(np.float32), [lines(10), lines(10, 30)], SURVEY, 0.02
    )
    assert counts[50].tolist() == [40, 80, 80, 120]
    precision, recall, f = compute_curve(counts[50])
    assert (precision, recall) == (1 / 2, 2 / 3)
    assert f == pytest.approx(4 / 7)


def test_counts_of_annotators_with_different_lines():
    counts = count_boundary_matches(
        lines(10, 20).astype(np.float32), [lines(10), lines(20)], SURVEY, 0.02
    )
    assert counts[50].tolist() == [80, 80, 80, 80]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("order", [1, -1])
def test_annotators_match_the_nearest_pixels_at_any_thresholds(axis, order):
    """Pixels 9 and 12 are predicted, 12 with the higher probability; the annotators have 10 and 13.

    The first annotator could match either pixel. Its nearest is 9, so that both are matched. The
    matching of the map above, in which it has pixel 12 only, must not be kept.
    """
    probability = np.zeros((40, 40), np.float32)
    probability[20, [9, 12]] = 0.4, 0.9
    truths = np.zeros((2, 40, 40), bool)
    truths[[0, 1], 20, [10, 13]] = True
    probability, truths = (
        np.swapaxes(array, -1, -1 - axis)[..., ::order, ::order] for array in (probability, truths)
    )
    for thresholds in ((0.3,), (0.3, 0.7), SURVEY.thresholds):
        protocol = replace(SURVEY, thresholds=thresholds)
        counts = count_boundary_matches(probability, list(truths), protocol, 2.1 / np.hypot(40, 40))
        at = max(index for index, value in enumerate(thresholds) if value <= 0.3)
        assert counts[at].tolist() == [2, 2, 2, 2]


def test_counts_without_annotators():
    assert count_boundary_matches(lines(10).astype(np.float32), [], SURVEY, 0.02)[50].tolist() == [
        0,
        40,
        0,
        0,
    ]


def test_curve_of_zero_counts_is_0():
    assert np.concatenate(compute_curve(np.zeros((1, 4), np.int64))).tolist() == [0, 0, 0]


def test_ods_and_ois_of_two_images():
    """The two images have perfect scores at different thresholds."""
    first = np.array([[10, 20, 10, 10], [10, 10, 10, 10]])
    second = np.array([[10, 10, 10, 10], [5, 5, 5, 10]])
    found = compute_summary(first + second, select_best_counts(first) + select_best_counts(second))
    # First threshold: P = 20/30, R = 1; second threshold: P = 1, R = 15/20.
    assert found["odsF"] == pytest.approx(100 * max(2 * (2 / 3) / (5 / 3), 2 * 0.75 / 1.75))
    assert found["oisF"] == 100


def test_lowest_of_equally_good_thresholds_is_selected():
    assert select_best_counts(np.array([[0, 9, 0, 5], [0, 3, 0, 5]])).tolist() == [0, 9, 0, 5]


def test_average_precision_of_three_points():
    """The curve is constant from (0, 1) to (.5, 1) and falls to (1, .5); it has 101 samples."""
    area = compute_average_precision(np.array([0.5, 1, 1]), np.array([1, 0.5, 0]))
    assert area == pytest.approx((50 * 1 + sum(1 - k / 100 for k in range(51))) / 100)


def test_average_precision_is_0_outside_the_range_of_recalls():
    area = compute_average_precision(np.array([0.8, 0.8]), np.array([0.25, 0.5]))
    assert area == pytest.approx(26 * 0.8 / 100)


def test_average_precision_uses_highest_precision_of_equal_recalls():
    doubled = compute_average_precision(np.array([0.2, 1, 0.3, 1]), np.array([0.5, 0.5, 1, 1]))
    assert doubled == pytest.approx(0.51)
    assert compute_average_precision(np.ones(1), np.ones(1)) == 0


@pytest.mark.parametrize("name", PROTOCOLS)
def test_scores_do_not_depend_on_batches_and_ranks(name):
    probability, target = pictures()
    expected = scores(boundary(name, max_distance=FAR), probability, target)
    assert 20 < expected["odsF"] < expected["oisF"] < 100
    ranks = [boundary(name, max_distance=FAR) for _ in range(2)]
    for rank, metric in enumerate(ranks):
        for index in range(rank, len(target), 2):
            metric.update(probability[index : index + 1], target[index : index + 1])
    total = boundary(name, max_distance=FAR)
    assert set(total._reductions.values()) == {dim_zero_sum}
    total.update(probability[:0], target[:0])
    for state in total._defaults:
        setattr(total, state, sum(getattr(metric, state) for metric in ranks))
    assert total.compute_dict() == expected
    flipped = scores(boundary(name, max_distance=FAR), probability.flip(0), target.flip(0))
    assert flipped == expected


def test_reset_and_unmodified_arguments():
    probability, target = pictures(2)
    metric = boundary("modern")
    copies = probability.clone(), target.clone()
    first = scores(metric, probability, target)
    metric.reset()
    assert scores(metric, probability, target) == first
    torch.testing.assert_close((probability, target), copies, rtol=0, atol=0)


def test_counts_at_fewer_thresholds():
    probability, truth = picture(0)
    few = count_boundary_matches(
        probability, [truth], replace(SURVEY, thresholds=make_even_thresholds(3)), FAR
    )
    assert np.array_equal(
        few, count_boundary_matches(probability, [truth], SURVEY, FAR)[[24, 49, 74]]
    )
