"""Random color changes: reproducible, equal to torchvision, without rounding between them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from densemtl.config.sections import ColorJitterConfig
from densemtl.transforms import color_jitter
from densemtl.transforms.color_jitter import AffineColorJitter

NONE = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (8, 9, 3)).astype(np.uint8)


def test_colors_depend_on_the_generator_only(image):
    before = image.copy()
    first, second = AffineColorJitter(ColorJitterConfig()), AffineColorJitter(ColorJitterConfig())
    second(image, np.random.default_rng(9))
    results = [jitter(image, np.random.default_rng(5)) for jitter in (first, second)]
    np.testing.assert_array_equal(*results)
    assert results[0].dtype == np.uint8
    assert not np.array_equal(results[0], first(image, np.random.default_rng(6)))
    np.testing.assert_array_equal(image, before)


def test_strength_0_is_the_identity(image):
    jitter = AffineColorJitter(ColorJitterConfig(**NONE))
    np.testing.assert_array_equal(jitter(image, np.random.default_rng(0)), image)


@pytest.mark.parametrize("strength", [0.2, 0.6])
def test_brightness_stays_within_its_bounds(strength):
    gray = np.full((4, 4, 3), 100, np.uint8)
    jitter = AffineColorJitter(ColorJitterConfig(**NONE | {"brightness": strength}))
    rng = np.random.default_rng(0)
    values = [float(jitter(gray, rng).mean()) for _ in range(40)]
    assert 99 * (1 - strength) <= min(values) < 100 * (1 - 0.8 * strength)
    assert 100 * (1 + 0.8 * strength) < max(values) <= 101 * (1 + strength)


def test_saturation_and_hue_keep_gray():
    gray = np.full((4, 4, 3), 100, np.uint8)
    jitter = AffineColorJitter(ColorJitterConfig(**NONE | {"saturation": 1.0, "hue": 0.5}))
    np.testing.assert_array_equal(jitter(gray, np.random.default_rng(0)), gray)


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    """Return an image with values from 60 to 180, so that no value is clipped."""
    return np.random.default_rng(2).integers(60, 181, (5, 6, 3)).astype(np.uint8)


@pytest.mark.parametrize("change", [-0.3, 0.2])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (color_jitter.make_brightness_matrix, reference.adjust_brightness),
        (color_jitter.make_contrast_matrix, reference.adjust_contrast),
        (color_jitter.make_saturation_matrix, reference.adjust_saturation),
    ],
)
def test_changes_equal_torchvision(smooth, ours, theirs, change):
    mean = float(color_jitter.LUMA_WEIGHTS @ [*smooth.mean((0, 1)), 1])
    pixels = np.dstack([smooth, np.ones(smooth.shape[:2])])
    changed = pixels @ ours(change, mean)[:3].T
    expected = theirs(torch.from_numpy(smooth).permute(2, 0, 1) / 255, 1 + change) * 255
    np.testing.assert_allclose(changed, expected.permute(1, 2, 0), atol=0.1)


def test_hue_rotates_about_gray_and_keeps_luma():
    rotation = color_jitter.make_hue_matrix(0.05)[:3, :3]
    luma = color_jitter.LUMA_WEIGHTS[:3]
    np.testing.assert_allclose(rotation @ [1, 1, 1], [1, 1, 1], atol=1e-3)
    np.testing.assert_allclose(luma @ rotation, luma, atol=1e-9)
    full_circle = np.linalg.matrix_power(color_jitter.make_hue_matrix(1 / 3)[:3, :3], 3)
    np.testing.assert_allclose(full_circle, np.eye(3), atol=1e-9)
    assert (color_jitter.make_hue_matrix(1 / 3)[:3, 0]).argmax() == 1, "red becomes green"


def test_matrix_product_equals_sequential_changes(smooth):
    """The contrast uses the mean gray after the preceding changes."""
    jitter = AffineColorJitter(
        ColorJitterConfig(brightness=0.1, contrast=0.2, saturation=0.2, hue=0.02)
    )
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    changes = [again.uniform(-most, most) for most in (0.1, 0.2, 0.2, 0.02)]
    steps = (
        color_jitter.make_brightness_matrix,
        color_jitter.make_contrast_matrix,
        color_jitter.make_saturation_matrix,
        color_jitter.make_hue_matrix,
    )
    pixels = np.dstack([smooth, np.ones(smooth.shape[:2])])
    for index in again.permutation(4):
        mean = float((pixels @ color_jitter.LUMA_WEIGHTS).mean())
        pixels = pixels @ steps[index](changes[index], mean).T
    np.testing.assert_allclose(jitter(smooth, rng), pixels[..., :3], atol=0.75)
