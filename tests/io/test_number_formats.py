"""Decoders of stored numbers and depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densemtl.errors import DataError
from densemtl.io import number_formats

FILE = Path("some", "file.png")


def test_decode_depth_in_meters_and_millimeters() -> None:
    meters = number_formats.decode_depth(np.array([[0, 1.5, np.nan]]), FILE)
    np.testing.assert_array_equal(meters, np.array([[np.nan, 1.5, np.nan]], np.float32))
    stored = np.array([[0, 1500, 0]], np.uint16)
    np.testing.assert_allclose(number_formats.decode_depth(stored, FILE), meters)
    assert meters.dtype == np.float32


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (np.full((2, 2), np.nan), "no pixel has a depth"),
        (np.zeros((2, 2)), "no pixel has a depth"),
        (np.array([[1.0, np.inf]]), "infinite or negative"),
        (np.array([[1.0, -2.0]]), "infinite or negative"),
        (np.array([[1.0, 1500.0]]), "1500 m"),
        (np.ones((2, 2), np.uint8), "8-bit depth"),
        (np.ones((2, 2, 2)), "one number per pixel"),
    ],
)
def test_invalid_depth_is_an_error(bad: np.ndarray, word: str) -> None:
    with pytest.raises(DataError, match=rf"file\.png.*{word}"):
        number_formats.decode_depth(bad, FILE)


def test_decode_numbers_scales_and_ignores() -> None:
    stored = np.array([[1, 65535]], np.uint16)
    values = number_formats.decode_numbers(stored, 1, FILE, scale=0.01, ignore_values=(65535,))
    np.testing.assert_allclose(values, np.array([[0.01, np.nan]]), rtol=1e-6)
    assert number_formats.decode_numbers(np.zeros((2, 4, 5)), 2, FILE).shape == (4, 5, 2)
    for bad in (np.zeros((4, 5)), np.full((4, 5, 2), np.inf)):
        with pytest.raises(DataError, match=r"file\.png"):
            number_formats.decode_numbers(bad, 2, FILE)


@pytest.mark.parametrize(
    ("stored", "options", "expected"),
    [
        (np.array([0, 1, 2, 5], np.uint16), {"scale": 2, "offset": -1}, [-1, 1, 3, 9]),
        (np.array([0, 1, 2, 5], np.uint16), {"inverse": True}, [np.nan, 1, 0.5, 0.2]),
        (
            np.array([0, 1, 3], np.uint16),  # disparity of Cityscapes: (stored - 1) / 256
            {"scale": 1 / 256, "offset": -1 / 256, "inverse": True},
            [np.nan, np.nan, 128],
        ),
        (np.array([-1.0, 0.5, np.inf]), {"inverse": True}, [np.nan, 2, 0]),
        (np.array([1.0, 2, 3, 4]), {"valid_range": (2, 3)}, [np.nan, 2, 3, np.nan]),
        (np.array([1, np.inf, -np.inf]), {"valid_range": (0, 9)}, [1, np.nan, np.nan]),
        (np.array([100, 400]), {"scale": 0.01, "valid_range": (2, np.inf)}, [np.nan, 4]),
        (
            np.array([1, np.inf, -np.inf], np.float16),
            {"ignore_values": (np.inf, -np.inf)},
            [1, np.nan, np.nan],
        ),
        (np.array([2.5, -9999.9], np.float32), {"ignore_values": (-9999.9,)}, [2.5, np.nan]),
        (np.array([1, 2], np.int32), {"ignore_values": (2, np.inf)}, [1, np.nan]),
        (np.array([1, 2], np.float16), {"ignore_values": (1e6, 2)}, [1, np.nan]),
    ],
)
def test_numbers_are_converted_and_ignored(
    stored: np.ndarray, options: dict[str, Any], expected: list[float]
) -> None:
    values = number_formats.decode_numbers(stored[None], 1, FILE, **options)
    np.testing.assert_allclose(values, np.array([expected]), rtol=1e-6)
    assert values.dtype == np.float32


@pytest.mark.parametrize(
    ("stored", "options"),
    [
        (np.array([[1, np.inf]]), {}),
        (np.array([[1, np.inf]], np.float16), {"ignore_values": (1e6,)}),
        (np.array([[1, -np.inf]]), {"ignore_values": (np.inf,)}),
        (np.array([[1e-40]], np.float32), {"inverse": True}),
    ],
)
def test_infinite_numbers_are_an_error(stored: np.ndarray, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"file\.png: infinite values.*\.inf to ignore_values"):
        number_formats.decode_numbers(stored, 1, FILE, **options)
