"""Saliency and binary scores, compared with loops over images and thresholds in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from densemtl.metrics.binary import BinaryMetric
from densemtl.types import IGNORE_INDEX
from tests.helpers.protocols import saliency


def scores(metric, probability, target) -> dict[str, float]:
    metric.update(torch.as_tensor(probability), torch.as_tensor(target))
    return metric.compute_dict()


def draw(seed: int, images: int = 4):
    rng = np.random.default_rng(seed)
    target = (rng.random((images, 8, 7)) < 0.3).astype(np.uint8)
    noise = rng.random(target.shape)
    probability = (0.55 * noise + 0.45 * target * rng.random(target.shape)).astype(np.float32)
    target[rng.random(target.shape) < 0.2] = IGNORE_INDEX
    return probability, target


def counts(probability, target, threshold, inclusive):
    valid = target != IGNORE_INDEX
    found = (probability >= threshold if inclusive else probability > threshold) & valid
    truth = (target == 1) & valid
    return (found & truth).sum(), found.sum(), truth.sum()


def ratio(part, whole):
    return part / whole if whole else 0.0


def f_measure(precision, recall, beta_squared):
    bottom = beta_squared * precision + recall
    return (1 + beta_squared) * precision * recall / bottom if bottom else 0.0


def numpy_survey(probability, target):
    best_f, best_iou = 0.0, 0.0
    for percent in range(20, 91, 5):
        rows = []
        for image, label in zip(probability, target, strict=True):
            hits, found, truth = counts(image, label, np.float32(percent / 100), False)
            union = found + truth - hits
            iou = hits / union if union else 1.0
            rows.append((ratio(hits, found), ratio(hits, truth), iou))
        precision, recall, iou = np.mean(rows, axis=0)
        best_f, best_iou = max(best_f, f_measure(precision, recall, 1.0)), max(best_iou, iou)
    return {"maxF": 100 * best_f, "mIoU": 100 * best_iou}


def numpy_modern(probability, target):
    best_f, best_iou = 0.0, 0.0
    for percent in range(5, 96, 5):
        threshold = np.float32(percent / 100)
        hits, found, truth = counts(probability, target, threshold, True)
        best_f = max(best_f, f_measure(ratio(hits, found), ratio(hits, truth), 0.3))
        each = [counts(*pair, threshold, True) for pair in zip(probability, target, strict=True)]
        ious = [hit / (f + t - hit) if f + t - hit else 1.0 for hit, f, t in each]
        best_iou = max(best_iou, np.mean(ious))
    return {"maxF": 100 * best_f, "mIoU": 100 * best_iou}


REFERENCES = {"survey": numpy_survey, "modern": numpy_modern}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("protocol", REFERENCES)
def test_saliency_scores_equal_numpy_reference(protocol, seed):
    batch = draw(seed)
    found = scores(saliency(protocol), *batch)
    assert found == pytest.approx(REFERENCES[protocol](*batch), rel=1e-9)


def test_protocols_have_different_scores():
    batch = draw(0)
    found = [scores(saliency(protocol), *batch)["maxF"] for protocol in REFERENCES]
    assert abs(found[0] - found[1]) > 0.5


@pytest.mark.parametrize(("protocol", "at_threshold"), [("survey", 0), ("modern", 100)])
def test_probabilities_exactly_at_a_threshold(protocol, at_threshold):
    """.2 is the lowest threshold of survey, which is exclusive; .95 is the highest of modern."""
    value = {"survey": 0.2, "modern": 0.95}[protocol]
    probability = np.full((1, 2, 2), value, np.float32)
    found = scores(saliency(protocol), probability, np.ones((1, 2, 2), np.uint8))
    assert found["maxF"] == at_threshold


@pytest.mark.parametrize(
    ("protocol", "object_at", "rest_at"),
    [
        ("survey", 0.21, 0.19),
        ("survey", 0.91, 0.89),
        ("modern", 0.06, 0.04),
        ("modern", 0.96, 0.94),
    ],
)
def test_lowest_and_highest_thresholds_are_used(protocol, object_at, rest_at):
    target = np.array([[[1, 0]]], np.uint8)
    probability = np.array([[[object_at, rest_at]]], np.float32)
    assert scores(saliency(protocol), probability, target) == {"maxF": 100, "mIoU": 100}


@pytest.mark.parametrize("protocol", REFERENCES)
def test_perfect_and_inverted_predictions(protocol):
    _, target = draw(1)
    perfect = (target == 1).astype(np.float32)
    assert scores(saliency(protocol), perfect, target) == {"maxF": 100, "mIoU": 100}
    assert scores(saliency(protocol), 1 - perfect, target) == {"maxF": 0, "mIoU": 0}


@pytest.mark.parametrize("protocol", REFERENCES)
def test_image_without_object_and_prediction_has_iou_1(protocol):
    empty = np.zeros((1, 3, 3))
    assert scores(saliency(protocol), empty, empty.astype(np.uint8))["mIoU"] == 100


@pytest.mark.parametrize("protocol", REFERENCES)
def test_ignored_images_and_pixels_are_excluded(protocol):
    probability, target = draw(2)
    expected = scores(saliency(protocol), probability, target)
    ignored = np.full((1, *target.shape[1:]), IGNORE_INDEX, np.uint8)
    more = np.concatenate([probability, np.ones_like(probability[:1])])
    assert scores(saliency(protocol), more, np.concatenate([target, ignored])) == expected
    changed = np.where(target == IGNORE_INDEX, 1 - probability, probability)
    assert scores(saliency(protocol), changed, target) == expected


@pytest.mark.parametrize(
    "metric", [lambda: saliency("survey"), lambda: saliency("modern"), BinaryMetric]
)
@pytest.mark.parametrize("images", [0, 2])
def test_scores_without_valid_pixels_are_nan(metric, images):
    found = scores(
        metric(), np.ones((images, 3, 3)), np.full((images, 3, 3), IGNORE_INDEX, np.uint8)
    )
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_binary_scores_equal_numpy_reference(seed):
    probability, target = draw(seed)
    best = 0.0
    for percent in range(1, 100):
        hits, found, truth = counts(probability, target, np.float32(percent / 100), True)
        best = max(best, f_measure(ratio(hits, found), ratio(hits, truth), 1.0))
    p = probability.astype(float)
    nll = (-np.log(p[target == 1]).mean() - np.log(1 - p[target == 0]).mean()) / 2
    expected = {"pixel_maxF": 100 * best, "balanced_nll": nll}
    assert scores(BinaryMetric(), probability, target) == pytest.approx(expected, rel=1e-5)


def test_binary_scores_of_perfect_and_inverted_predictions():
    _, target = draw(0)
    perfect = (target == 1).astype(np.float32)
    found = scores(BinaryMetric(), perfect, target)
    assert found["pixel_maxF"] == 100
    assert found["balanced_nll"] == pytest.approx(0, abs=1e-5)
    inverted = scores(BinaryMetric(), 1 - perfect, target)
    assert math.isfinite(inverted["balanced_nll"])
    assert inverted["pixel_maxF"] == 0


def test_binary_scores_without_positive_or_negative_pixels():
    ones, zeros = np.ones((1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8)
    half = np.full((1, 2, 2), 0.5, np.float32)
    only_positive, only_negative = (
        scores(BinaryMetric(), half, ones),
        scores(BinaryMetric(), half, zeros),
    )
    assert only_positive["pixel_maxF"] == 100
    assert math.isnan(only_negative["pixel_maxF"])
    assert math.isnan(only_positive["balanced_nll"])
    assert math.isnan(only_negative["balanced_nll"])
