"""Every metric of pixels against scikit-learn, on random and on degenerate inputs."""

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
CASES = ["random", "perfect", "inverted", "mostly void", "one pixel", "absent", "empty", "void"]


def scores(metric, prediction, target) -> dict[str, float]:
    metric.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return metric.compute_dict()


def masked(target, case, void):
    """The label with what the case says voided."""
    rng = np.random.default_rng(2)
    share = {"void": 1.0, "mostly void": 0.9}.get(case, 0.2)
    target[rng.random(SHAPE) < share] = void
    if case == "one pixel":
        kept = target[0, 3, 2]
        target[:] = void
        target[0, 3, 2] = 1 if np.isnan(kept) or kept == IGNORE_INDEX else kept
    return target[:0] if case == "empty" else target


def binary(case):
    """(probabilities, labels) of a yes or no."""
    rng = np.random.default_rng(1)
    label = (rng.random(SHAPE) < (0 if case == "absent" else 0.4)).astype(np.uint8)
    noise = rng.random(SHAPE).astype(np.float32)
    given = {"perfect": label, "inverted": 1 - label}.get(case, 0.6 * noise + 0.4 * label)
    return np.float32(given)[: 0 if case == "empty" else None], masked(label, case, IGNORE_INDEX)


def classes(case):
    """(ids, labels) of four classes."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, 3 if case == "absent" else 4, SHAPE).astype(np.uint8)
    noise = rng.integers(0, 3 if case == "absent" else 4, SHAPE)
    given = {"perfect": label, "inverted": (label + 1) % 4}.get(case, noise)
    return given.astype(np.int64)[: 0 if case == "empty" else None], masked(
        label, case, IGNORE_INDEX
    )


def numbers(case):
    """(metres, labels), one channel."""
    rng = np.random.default_rng(1)
    label, noise = rng.uniform(0.5, 9, (2, *SHAPE)).astype(np.float32)
    given = label.copy() if case == "perfect" else noise
    label = masked(label, case, np.nan)
    return given[: len(label), None], label[:, None]


@pytest.mark.parametrize("case", CASES)
def test_classes(case):
    ids, label = classes(case)
    found = scores(MIoU("abcd"), ids, label)
    p, t = ids[label != IGNORE_INDEX], label[label != IGNORE_INDEX]
    if not t.size:
        assert all(math.isnan(value) for value in found.values())
        return
    seen = np.union1d(p, t)
    each = metrics.jaccard_score(t, p, labels=seen, average=None, zero_division=0)
    named = {f"IoU/{'abcd'[index]}": 100 * iou for index, iou in zip(seen, each, strict=True)}
    absent = {f"IoU/{'abcd'[index]}": math.nan for index in {0, 1, 2, 3} - set(seen.tolist())}
    recalls = metrics.recall_score(t, p, labels=np.unique(t), average="macro", zero_division=0)
    assert found == pytest.approx(
        {
            "mIoU": 100 * each.mean(),
            "pixel_accuracy": 100 * metrics.accuracy_score(t, p),
            "mean_accuracy": 100 * recalls,
            **named,
            **absent,
        },
        nan_ok=True,
    )


@pytest.mark.parametrize("case", CASES)
def test_numbers(case):
    given, label = numbers(case)
    found = {
        **scores(RegressionMetric(), given, label),
        "depth": scores(DepthMetric(), given, label)["rmse"],
    }
    p, t = given[np.isfinite(label)], label[np.isfinite(label)]
    if not t.size:
        assert all(math.isnan(value) for value in found.values())
        return
    rmse = math.sqrt(metrics.mean_squared_error(t, p))
    mae = metrics.mean_absolute_error(t, p)
    assert found == pytest.approx({"rmse": rmse, "mae": mae, "depth": rmse}, rel=1e-5)


def best_f(t, p, percents, beta, inclusive):
    """The largest F-measure over thresholds, by the library."""
    thresholds = [np.float32(percent / 100) for percent in percents]
    maps = [p >= t0 if inclusive else p > t0 for t0 in thresholds]
    return 100 * max(metrics.fbeta_score(t, each, beta=beta, zero_division=0) for each in maps)


@pytest.mark.parametrize("case", CASES)
def test_yes_or_no(case):
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
    kept = p.astype(float).clip(1e-6, 1 - 1e-6)
    sides = [metrics.log_loss(t[t == side], kept[t == side], labels=[0, 1]) for side in (0, 1)]
    assert found["balanced_nll"] == pytest.approx(np.mean(sides), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_saliency_of_pooled_pixels(case):
    probability, label = binary(case)
    found = scores(saliency("modern"), probability, label)["maxF"]
    p, t = probability[label != IGNORE_INDEX], label[label != IGNORE_INDEX]
    expected = best_f(t, p, range(5, 96, 5), math.sqrt(0.3), True) if t.size else math.nan
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("case", CASES)
def test_saliency_image_by_image(case):
    """IoU under both protocols, and the means that `survey` takes F of."""
    probability, label = binary(case)
    shown = [
        (p[t != IGNORE_INDEX], t[t != IGNORE_INDEX])
        for p, t in zip(probability, label, strict=True)
    ]
    shown = [(p, t) for p, t in shown if t.size]
    if not shown:
        return
    for protocol, percents in (("survey", range(20, 91, 5)), ("modern", range(5, 96, 5))):
        rows = [mean_scores(shown, np.float32(at / 100), protocol) for at in percents]
        found = scores(saliency(protocol), probability, label)
        assert found["mIoU"] == pytest.approx(100 * max(iou for _, _, iou in rows))
        if protocol == "survey":
            f = [2 * p * r / (p + r) if p + r else 0 for p, r, _ in rows]
            assert found["maxF"] == pytest.approx(100 * max(f))


def mean_scores(shown, threshold, protocol):
    """Precision, recall and IoU at a threshold, by the library, averaged over images."""
    rows = []
    for p, t in shown:
        binary = p > threshold if protocol == "survey" else p >= threshold
        iou = metrics.jaccard_score(t, binary, zero_division=1)
        precision = metrics.precision_score(t, binary, zero_division=0)
        rows.append((precision, metrics.recall_score(t, binary, zero_division=0), iou))
    return np.mean(rows, axis=0)


@pytest.mark.parametrize("case", CASES)
def test_calibration(case):
    probability, label = binary(case)
    metric = CalibrationError()
    found = scores(metric, probability, label)["ECE"]
    p, t = probability[label != IGNORE_INDEX], label[label != IGNORE_INDEX]
    if not t.size:
        assert math.isnan(found)
        return
    true, told = calibration.calibration_curve(t, p, n_bins=NUM_BINS)
    counts = np.histogram(p, NUM_BINS, (0, 1))[0]
    share = counts[counts > 0] / len(p)
    assert found == pytest.approx(100 * (share * np.abs(true - told)).sum(), abs=1e-5)
