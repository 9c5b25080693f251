"""Expected calibration error, compared with values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from densemtl.metrics.calibration_error import NUM_BINS, CalibrationError
from densemtl.types import IGNORE_INDEX


def scored(probability: list[float], label: list[int]) -> float:
    metric = CalibrationError()
    metric.update(torch.tensor([[probability]]), torch.tensor([[label]], dtype=torch.uint8))
    return metric.compute_dict()["ECE"]


def test_error_of_two_pixels() -> None:
    assert scored([0.51, 0.51], [1, 0]) == pytest.approx(1)
    assert scored([0.0, 1.0], [0, 1]) == pytest.approx(0)
    assert scored([0.0, 1.0], [1, 0]) == pytest.approx(100)


def test_bins_are_weighted_by_their_number_of_pixels() -> None:
    """Three pixels have probability .9, two of them are positive; a negative one has .2."""
    expected = 3 / 4 * (0.9 - 2 / 3) + 1 / 4 * 0.2
    assert scored([0.9, 0.9, 0.9, 0.2], [1, 1, 0, 0]) == pytest.approx(100 * expected)


def test_ignored_pixels_are_excluded_and_error_without_pixels_is_nan() -> None:
    assert scored([0.0, 0.7], [0, IGNORE_INDEX]) == pytest.approx(0)
    assert math.isnan(scored([0.7], [IGNORE_INDEX]))


def test_calibrated_probabilities_have_a_small_error() -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(4, 100, 100, generator=generator)
    label = (torch.rand(4, 100, 100, generator=generator) < probability).to(torch.uint8)
    metric = CalibrationError()
    metric.update(probability[:1], label[:1])
    metric.update(probability[1:], label[1:])
    assert metric.compute_dict()["ECE"] < 1.5
    predicted, true, share = metric.compute_curve()
    torch.testing.assert_close(predicted, true, atol=0.05, rtol=0)
    assert float(share.sum()) == pytest.approx(1)
    assert len(predicted) == NUM_BINS
