"""Calibration of probabilities by hand."""

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


def test_half_of_the_pixels_given_a_half_are_positive() -> None:
    assert scored([0.51, 0.51], [1, 0]) == pytest.approx(1)
    assert scored([0.0, 1.0], [0, 1]) == pytest.approx(0)
    assert scored([0.0, 1.0], [1, 0]) == pytest.approx(100)


def test_bins_weigh_by_their_pixels() -> None:
    """Three pixels at .9 of which two are positive, one at .2 that is none."""
    wanted = 3 / 4 * (0.9 - 2 / 3) + 1 / 4 * 0.2
    assert scored([0.9, 0.9, 0.9, 0.2], [1, 1, 0, 0]) == pytest.approx(100 * wanted)


def test_void_does_not_count_and_nothing_is_nan() -> None:
    assert scored([0.0, 0.7], [0, IGNORE_INDEX]) == pytest.approx(0)
    assert math.isnan(scored([0.7], [IGNORE_INDEX]))


def test_a_well_calibrated_map_has_a_small_error() -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(4, 100, 100, generator=generator)
    label = (torch.rand(4, 100, 100, generator=generator) < probability).to(torch.uint8)
    metric = CalibrationError()
    metric.update(probability[:1], label[:1])
    metric.update(probability[1:], label[1:])
    assert metric.compute_dict()["ECE"] < 1.5
    told, true, share = metric.compute_curve()
    torch.testing.assert_close(told, true, atol=0.05, rtol=0)
    assert float(share.sum()) == pytest.approx(1)
    assert len(told) == NUM_BINS
