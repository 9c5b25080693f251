"""Errors of depth and of other real-valued maps, compared with NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from densemtl.metrics.depth import DepthMetric
from densemtl.metrics.regression import RegressionMetric


def scores(metric, prediction, target) -> dict[str, float]:
    metric.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return metric.compute_dict()


def draw(seed: int, channels: int = 1):
    rng = np.random.default_rng(seed)
    prediction, target = rng.uniform(0.4, 9, (2, 3, channels, 8, 6)).astype(np.float32)
    target[:, 0][rng.random((3, 8, 6)) < [[[0.1]], [[0.5]], [[0.9]]]] = np.nan
    return prediction, target


@pytest.mark.parametrize("seed", range(3))
def test_depth_errors_equal_numpy_reference(seed):
    prediction, target = draw(seed)
    errors = scores(DepthMetric(), prediction, target)
    valid = np.isfinite(target)
    p, t = prediction[valid].astype(float), target[valid].astype(float)
    ratio = np.maximum(p / t, t / p)
    per_image = [
        np.sqrt(np.mean((image[mask] - label[mask]) ** 2))
        for image, label, mask in zip(prediction, target, valid, strict=True)
    ]
    expected = {
        "rmse": np.sqrt(np.mean((p - t) ** 2)),
        "rmse_per_image": np.mean(per_image),
        "abs_rel": np.mean(np.abs(p - t) / t),
        "sq_rel": np.mean((p - t) ** 2 / t),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(t))),
        "rmse_log": np.sqrt(np.mean((np.log(p) - np.log(t)) ** 2)),
    } | {f"delta{k}": 100 * np.mean(ratio < 1.25**k) for k in (1, 2, 3)}
    assert errors == pytest.approx(expected, rel=1e-5)
    assert errors["rmse"] != pytest.approx(errors["rmse_per_image"], rel=1e-3)


def test_perfect_depth_has_no_error():
    _, target = draw(0)
    errors = scores(DepthMetric(), np.nan_to_num(target, nan=5.0), target)
    assert all(errors[name] == 0 for name in ("rmse", "abs_rel", "sq_rel", "log10", "rmse_log"))
    assert errors["delta1"] == 100


def test_images_without_labels_are_excluded():
    prediction, target = draw(1)
    target[1] = np.nan
    expected = scores(DepthMetric(), prediction[[0, 2]], target[[0, 2]])
    assert scores(DepthMetric(), prediction, target) == pytest.approx(expected)


@pytest.mark.parametrize("meters", [0.0, -3.0])
def test_predictions_below_0_are_clamped(meters):
    errors = scores(DepthMetric(), np.full((1, 1, 2, 2), meters), np.full((1, 1, 2, 2), 2.0))
    assert all(math.isfinite(value) for value in errors.values())
    assert errors["rmse"] == 2.0
    assert errors["delta3"] == 0


@pytest.mark.parametrize("metric", [DepthMetric, RegressionMetric])
@pytest.mark.parametrize("shape", [(0, 1, 3, 3), (2, 1, 3, 3)])
def test_errors_without_valid_pixels_are_nan(metric, shape):
    errors = scores(metric(), np.ones(shape), np.full(shape, np.nan))
    assert all(math.isnan(value) for value in errors.values())


def test_errors_of_one_pixel():
    errors = scores(DepthMetric(), np.full((1, 1, 1, 1), 3.0), np.full((1, 1, 1, 1), 2.0))
    assert (errors["rmse"], errors["abs_rel"]) == (1.0, 0.5)
    assert (errors["delta1"], errors["delta2"]) == (0, 100)


@pytest.mark.parametrize("channels", [1, 3])
def test_regression_errors_equal_numpy_reference(channels):
    """A pixel is ignored if any of its channels is NaN."""
    prediction, target = draw(2, channels)
    valid = np.isfinite(target).all(1)
    error = np.moveaxis(prediction - target, 1, -1)[valid].astype(float)
    expected = {"rmse": np.sqrt(np.mean(error**2)), "mae": np.mean(np.abs(error))}
    assert scores(RegressionMetric(), prediction, target) == pytest.approx(expected, rel=1e-6)
