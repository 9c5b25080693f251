"""Angular errors compared with NumPy, and the median from a histogram with the exact one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from densemtl.metrics.normals import NormalsMetric


def scores(prediction, target) -> dict[str, float]:
    metric = NormalsMetric()
    metric.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return metric.compute_dict()


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def draw(seed: int, channels: int = 3, spread: float = 0.5, size=(11, 9)):
    rng = np.random.default_rng(seed)
    target = unit(rng.normal(size=(2, channels, *size)))
    prediction = target + spread * rng.normal(size=target.shape)
    target[:, :, rng.random(size) < 0.3] = np.nan
    return prediction.astype(np.float32), target.astype(np.float32)


def angles(prediction, target):
    valid = np.isfinite(target).all(1)
    cosine = (unit(prediction.astype(float)) * unit(target.astype(float))).sum(1)[valid]
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def flat(degrees: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Make predictions and targets with the given angles between them."""
    angle = np.radians(np.asarray(degrees, float))
    prediction = np.stack([np.sin(angle), np.zeros_like(angle), -np.cos(angle)])[None, :, None]
    target = np.zeros_like(prediction)
    target[:, 2] = -1
    return prediction.astype(np.float32), target.astype(np.float32)


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("spread", [0.01, 0.5, 5.0])
def test_errors_equal_numpy_reference(channels, spread):
    prediction, target = draw(0, channels, spread)
    angle = angles(prediction, target)
    found = scores(prediction, target)
    assert found["mErr"] == pytest.approx(angle.mean(), abs=1e-4)
    assert found["rmse"] == pytest.approx(np.sqrt((angle**2).mean()), abs=1e-4)
    assert found["median"] == pytest.approx(np.median(angle), abs=0.01)
    for limit in (11.25, 22.5, 30):
        assert found[f"within_{limit:g}"] == pytest.approx(100 * (angle < limit).mean())


@pytest.mark.parametrize(
    "degrees", [[10, 20], [1, 2, 90], [0, 0, 50, 170], [3], [180, 180], [5, 5, 5, 60, 61, 62]]
)
def test_median_of_few_pixels(degrees):
    assert scores(*flat(degrees))["median"] == pytest.approx(np.median(degrees), abs=0.01)


def test_perfect_prediction_has_no_error():
    _, target = draw(1)
    found = scores(3.7 * np.nan_to_num(target, nan=1.0), target)
    assert found["mErr"] < 0.02
    assert found["median"] < 0.01
    assert found["within_11.25"] == 100


def test_errors_of_opposite_vectors_and_zero_vectors():
    _, target = draw(1)
    filled = np.nan_to_num(target, nan=1.0)
    assert scores(-filled, target)["mErr"] == pytest.approx(180, abs=1e-3)
    assert scores(0 * filled, target)["mErr"] == pytest.approx(90, abs=1e-3)


@pytest.mark.parametrize("degrees", [0.05, 1.0, 89.0, 179.5])
def test_small_and_large_angles_are_exact(degrees):
    assert scores(*flat([degrees]))["mErr"] == pytest.approx(degrees, abs=1e-4)


def test_pixels_with_a_nan_component_are_ignored():
    prediction, target = flat([10, 50])
    target[0, 1, 0, 1] = np.nan
    assert scores(prediction, target)["mErr"] == pytest.approx(10, abs=1e-4)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (1, 3, 4, 4)])
def test_errors_without_valid_pixels_are_nan(shape):
    found = scores(np.ones(shape), np.full(shape, np.nan))
    assert all(math.isnan(value) for value in found.values())


def test_nan_predictions_make_the_mean_error_nan() -> None:
    metric = NormalsMetric()
    prediction, target = torch.ones(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    prediction[0, :, 0] = torch.nan
    metric.update(prediction, target)
    scores = metric.compute()
    assert math.isnan(scores["mErr"])
    assert scores["within_11.25"] == 50
