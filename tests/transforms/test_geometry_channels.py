"""Geometric transforms of images with any number of channels."""

from __future__ import annotations

import numpy as np
import pytest

from densemtl.transforms.geometry import BORDER_COLOR, GeometricTransform

TRANSFORMS = [
    GeometricTransform((-3, 2, 20, 16), (20, 16), flip=True),
    GeometricTransform((0, 0, 12, 16), (7, 9)),
    GeometricTransform((2, -4, 10, 20), (24, 28), angle=20.0),
]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 9])
def test_each_channel_is_transformed_alike(
    transform: GeometricTransform, dtype: type, channels: int
) -> None:
    rng = np.random.default_rng(0)
    image = (255 * rng.random((12, 16, channels))).astype(dtype)
    border = tuple(float(10 * channel + 1) for channel in range(channels))
    result = transform.apply_image(image, border)
    assert result.dtype == dtype
    assert result.shape == (*transform.size, channels)
    for channel in range(channels):
        plane = np.repeat(image[..., channel : channel + 1], 3, axis=2)
        expected = transform.apply_image(plane, (border[channel],) * 3)
        np.testing.assert_array_equal(result[..., channel], expected[..., 0])


@pytest.mark.parametrize(("channels", "value"), [(3, BORDER_COLOR[0]), (2, 0)])
def test_default_border(channels: int, value: float) -> None:
    image = np.full((4, 4, channels), 77, np.uint8)
    assert GeometricTransform((-4, 0, 4, 4), (4, 4)).apply_image(image)[0, 0, 0] == value
