"""Mean IoU, compared with torchmetrics and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from densemtl.metrics.miou import MIoU
from densemtl.types import IGNORE_INDEX

NAMES = ["a", "b", "c", "d"]


def scores(prediction, target, names=NAMES) -> dict[str, float]:
    metric = MIoU(names)
    metric.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return metric.compute_dict()


def draw(seed: int, ignored: float = 0.3, classes: int = 4):
    rng = np.random.default_rng(seed)
    prediction, target = rng.integers(0, classes, (2, 3, 9, 7))
    target[rng.random(target.shape) < ignored] = IGNORE_INDEX
    return prediction, target.astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_torchmetrics_and_numpy_reference(seed):
    prediction, target = draw(seed)
    found = scores(prediction, target)
    jaccard = MulticlassJaccardIndex(4, average="macro", ignore_index=IGNORE_INDEX)
    expected = 100 * jaccard(torch.as_tensor(prediction), torch.as_tensor(target).long()).item()
    assert found["mIoU"] == pytest.approx(expected, rel=1e-5)
    valid = target != IGNORE_INDEX
    p, t = prediction[valid], target[valid]
    for index, name in enumerate(NAMES):
        both, either = ((p == index) & (t == index)).sum(), ((p == index) | (t == index)).sum()
        assert found[f"IoU/{name}"] == pytest.approx(100 * both / either)
    accuracies = [100 * (p[t == index] == index).mean() for index in range(4)]
    assert found["pixel_accuracy"] == pytest.approx(100 * (p == t).mean())
    assert found["mean_accuracy"] == pytest.approx(np.mean(accuracies))


def test_perfect_prediction_scores_100():
    _, target = draw(0)
    found = scores(np.where(target == IGNORE_INDEX, 0, target), target)
    assert found["mIoU"] == found["pixel_accuracy"] == found["mean_accuracy"] == 100


def test_wrong_prediction_scores_0():
    _, target = draw(0)
    assert scores((target + 1) % 4, target)["mIoU"] == 0


def test_absent_classes_are_excluded_from_the_mean():
    target = np.array([[[0, 0, 1, 1]]], np.uint8)
    found = scores(np.array([[[0, 0, 1, 1]]]), target)
    assert found["mIoU"] == 100
    assert math.isnan(found["IoU/c"])


def test_class_that_is_predicted_but_absent_from_targets_scores_0():
    target = np.array([[[0, 0, 1, 1]]], np.uint8)
    found = scores(np.array([[[0, 0, 1, 2]]]), target)
    assert found["IoU/c"] == 0
    assert found["mIoU"] == pytest.approx((100 + 50 + 0) / 3)
    assert found["mean_accuracy"] == pytest.approx((100 + 50) / 2)


def test_predictions_at_ignored_pixels_are_excluded():
    target = np.array([[[0, 1, IGNORE_INDEX]]], np.uint8)
    values = [scores(np.array([[[0, 0, wrong]]]), target)["mIoU"] for wrong in range(4)]
    assert values == [25.0] * 4


@pytest.mark.parametrize(
    "target", [np.zeros((0, 4, 4), np.uint8), np.full((2, 4, 4), IGNORE_INDEX)]
)
def test_scores_without_valid_pixels_are_nan(target):
    found = scores(np.zeros(target.shape, np.int64), target)
    assert math.isnan(found["mIoU"])
    assert math.isnan(found["pixel_accuracy"])


def test_scores_of_one_pixel_and_one_class():
    assert scores(np.zeros((1, 1, 1), np.int64), np.zeros((1, 1, 1), np.uint8))["mIoU"] == 100
    target = np.array([[[0, IGNORE_INDEX]]], np.uint8)
    assert scores(np.zeros((1, 1, 2), np.int64), target, ["only"])["IoU/only"] == 100
