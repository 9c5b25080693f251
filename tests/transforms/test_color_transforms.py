"""Color transforms of images that have other channels than R, G and B."""

from __future__ import annotations

import numpy as np
import pytest

from densemtl.config.sections import AugmentConfig, ColorJitterConfig
from densemtl.errors import ConfigError
from densemtl.transforms.color_jitter import AffineColorJitter
from densemtl.transforms.color_transforms import make_color_transforms
from densemtl.types import ImageFormat

JITTER = AugmentConfig(color_jitter=ColorJitterConfig())
SOLARIZE = AugmentConfig(albumentations=({"name": "Solarize", "p": 1.0},))
FIVE = ImageFormat(5, (3, 1, 0), is_rgb=False)


def make_image(dtype: type) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 5)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("augment", [JITTER, SOLARIZE])
def test_only_the_colors_change(augment: AugmentConfig, dtype: type) -> None:
    image = make_image(dtype)
    before = image.copy()
    (transform,) = make_color_transforms(augment, FIVE)
    changed = transform(image, np.random.default_rng(1))
    assert changed.dtype == dtype
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(changed[..., [2, 4]], image[..., [2, 4]])
    (alone,) = make_color_transforms(augment, ImageFormat())
    colors = np.ascontiguousarray(image[..., [3, 1, 0]].astype(np.uint8))
    expected = alone(colors, np.random.default_rng(1))
    np.testing.assert_array_equal(changed[..., [3, 1, 0]], expected)
    assert (expected != colors).any()


def test_rgb_images_are_passed_on_unchanged() -> None:
    (transform,) = make_color_transforms(JITTER, ImageFormat())
    assert isinstance(transform, AffineColorJitter)


@pytest.mark.parametrize(("augment", "key"), [(JITTER, "color_jitter"), (SOLARIZE, "albument")])
def test_unknown_colors_are_an_error(augment: AugmentConfig, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"augment\.{key}.*4 channels.*set data\.rgb_channels"):
        make_color_transforms(augment, ImageFormat(4, None, is_rgb=False))
    assert make_color_transforms(AugmentConfig(), ImageFormat(4, None, is_rgb=False)) == []
