"""Pixel metrics compared with scikit-learn, on random and degenerate inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from densemtl.metrics.binary import BinaryMetric
from densemtl.metrics.calibration_error import NUM_BINS, CalibrationError
from densemtl.metrics.depth import DepthMetric
from densemtl.metrics.miou import MIoU
from densemtl.metrics.regression import RegressionMetric
from densemtl.types import IGNORE_INDEX
from tests.helpers.protocols import saliency

metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, of the extra dev")
calibration = pytest.importorskip("sklearn.calibration")

SHAPE = (3, 7, 5)
CASES = [
    "random",
    "perfect",
    "inverted",
    "mostly ignored",
    "one pixel",
    "absent",
    "empty",
    "ignored",
]


def scores(metric, prediction, target) -> dict[str, float]:
    metric.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return metric.compute_dict()


def masked(target, case, ignore_value):
    """Set the ignored pixels of a case in the target."""
    rng = np.random.default_rng(2)
    share = {"ignored": 1.0, "mostly ignored": 0.9}.get(case, 0.2)
    target[rng.random(SHAPE) < share] = ignore_value
    if case == "one pixel":
        value = target[0, 3, 2]
        target[:] = ignore_value
        target[0, 3, 2] = 1 if np.isnan(value) or value == IGNORE_INDEX else value
    return target[:0] if case == "empty" else target


def binary(case):
    """Return probabilities and binary targets of a case."""
    rng = np.random.default_rng(1)
    label = (rng.random(SHAPE) < (0 if case == "absent" else 0.4)).astype(np.uint8)
    noise = rng.random(SHAPE).astype(np.float32)
    prediction = {"perfect": label, "inverted": 1 - label}.get(case, 0.6 * noise + 0.4 * label)
    prediction = np.float32(prediction)[: 0 if case == "empty" else None]
    return prediction, masked(label, case, IGNORE_INDEX)


def classes(case):
    """Return predicted and target class ids of a case with four classes."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, 3 if case == "absent" else 4, SHAPE).astype(np.uint8)
    noise = rng.integers(0, 3 if case == "absent" else 4, SHAPE)
    prediction = {"perfect": label, "inverted": (label + 1) % 4}.get(case, noise)
    prediction = prediction.astype(np.int64)[: 0 if case == "empty" else None]
    return prediction, masked(label, case, IGNORE_INDEX)


def numbers(case):
    """Return predicted and target depths of a case, one channel."""
    rng = np.random.default_rng(1)
    label, noise = rng.uniform(0.5, 9, (2, *SHAPE)).astype(np.float32)
    prediction = label.copy() if case == "perfect" else noise
    label = masked(label, case, np.nan)
    return prediction[: len(label), None], label[:, None]


@pytest.mark.parametrize("case", CASES)
def test_miou_equals_sklearn(case):
    ids, label = classes(case)
    found = scores(MIoU("abcd"), ids, label)
    p, t = ids[label != IGNORE_INDEX], label[label != IGNORE_INDEX]
    if not t.size:
        assert all(math.isnan(value) for value in found.values())
        return
    present = np.union1d(p, t)
    ious = metrics.jaccard_score(t, p, labels=present, average=None, zero_division=0)
    named = {f"IoU/{'abcd'[index]}": 100 * iou for index, iou in zip(present, ious, strict=True)}
    absent = {f"IoU/{'abcd'[index]}": math.nan for index in {0, 1, 2, 3} - set(present.tolist())}
    recalls = metrics.recall_score(t, p, labels=np.unique(t), average="macro", zero_division=0)
    assert found == pytest.approx(
        {
            "mIoU": 100 * ious.mean(),
            "pixel_accuracy": 100 * metrics.accuracy_score(t, p),
            "mean_accuracy": 100 * recalls,
            **named,
            **absent,
        },
        nan_ok=True,
    )


@pytest.mark.parametrize("case", CASES)
def test_regression_errors_equal_sklearn(case):
    prediction, label = numbers(case)
    found = {
        **scores(RegressionMetric(), prediction, label),
        "depth": scores(DepthMetric(), prediction, label)["rmse"],
    }
    p, t = prediction[np.isfinite(label)], label[np.isfinite(label)]
    if not t.size:
        assert all(math.isnan(value) for value in found.values())
        return
    rmse = math.sqrt(metrics.mean_squared_error(t, p))
    mae = metrics.mean_absolute_error(t, p)
    assert found == pytest.approx({"rmse": rmse, "mae": mae, "depth": rmse}, rel=1e-5)


def best_f(t, p, percents, beta, inclusive):
    """Compute the largest F-measure over thresholds with scikit-learn."""
    thresholds = [np.float32(percent / 100) for percent in percents]
    maps = [p >= t0 if inclusive else p > t0 for t0 in thresholds]
    return 100 * max(metrics.fbeta_score(t, mask, beta=beta, zero_division=0) for mask in maps)


@pytest.mark.parametrize("case", CASES)
def test_binary_scores_equal_sklearn(case):
    probability, label = binary(case)
    found = scores(BinaryMetric(), probability, label)
    p, t = probability[label != IGNORE_INDEX], label[label != IGNORE_INDEX]
    if not (t == 1).any():
        assert all(math.isnan(value) for value in found.values())
        return
    assert found["pixel_maxF"] == pytest.approx(best_f(t, p, range(1, 100), 1, True))
    if not (t == 0).any():
        assert math.isnan(found["balanced_nll"])
        return
    clipped = p.astype(float).clip(1e-6, 1 - 1e-6)
    nll = [metrics.log_loss(t[t == value], clipped[t == value], labels=[0, 1]) for value in (0, 1)]
    assert found["balanced_nll"] == pytest.approx(np.mean(nll), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_pooled_saliency_scores_equal_sklearn(case):
    probability, label = binary(case)
    found = scores(saliency("modern"), probability, label)["maxF"]
    p, t = probability[label != IGNORE_INDEX], label[label != IGNORE_INDEX]
    expected = best_f(t, p, range(5, 96, 5), math.sqrt(0.3), True) if t.size else math.nan
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("case", CASES)
def test_saliency_scores_of_images_equal_sklearn(case):
    """Compare the IoU of both protocols, and the F-measure of `survey`."""
    probability, label = binary(case)
    images = [
        (p[t != IGNORE_INDEX], t[t != IGNORE_INDEX])
        for p, t in zip(probability, label, strict=True)
    ]
    images = [(p, t) for p, t in images if t.size]
    if not images:
        return
    for protocol, percents in (("survey", range(20, 91, 5)), ("modern", range(5, 96, 5))):
        rows = [mean_scores(images, np.float32(at / 100), protocol) for at in percents]
        found = scores(saliency(protocol), probability, label)
        assert found["mIoU"] == pytest.approx(100 * max(iou for _, _, iou in rows))
        if protocol == "survey":
            f = [2 * p * r / (p + r) if p + r else 0 for p, r, _ in rows]
            assert found["maxF"] == pytest.approx(100 * max(f))


def mean_scores(images, threshold, protocol):
    """Compute precision, recall and IoU at a threshold with scikit-learn, averaged over images."""
    rows = []
    for p, t in images:
        binary = p > threshold if protocol == "survey" else p >= threshold
        iou = metrics.jaccard_score(t, binary, zero_division=1)
        precision = metrics.precision_score(t, binary, zero_division=0)
        rows.append((precision, metrics.recall_score(t, binary, zero_division=0), iou))
    return np.mean(rows, axis=0)


@pytest.mark.parametrize("case", CASES)
def test_calibration_error_equals_sklearn(case):
    probability, label = binary(case)
    metric = CalibrationError()
    found = scores(metric, probability, label)["ECE"]
    p, t = probability[label != IGNORE_INDEX], label[label != IGNORE_INDEX]
    if not t.size:
        assert math.isnan(found)
        return
    true, predicted = calibration.calibration_curve(t, p, n_bins=NUM_BINS)
    counts = np.histogram(p, NUM_BINS, (0, 1))[0]
    share = counts[counts > 0] / len(p)
    assert found == pytest.approx(100 * (share * np.abs(true - predicted)).sum(), abs=1e-5)
