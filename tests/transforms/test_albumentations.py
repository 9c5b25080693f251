"""Transforms of albumentations: seeded per sample, of colors only, with errors of one line."""

from __future__ import annotations

import numpy as np
import pytest

from densemtl.errors import ConfigError
from densemtl.transforms.albumentations import AlbumentationsTransform

NOISE = {"name": "GaussNoise", "p": 1.0}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (16, 20, 3)).astype(np.uint8)


def test_noise_depends_on_the_generator_only(image):
    first, second = AlbumentationsTransform([NOISE]), AlbumentationsTransform([NOISE])
    second(image, np.random.default_rng(9))
    one, again = (each(image, np.random.default_rng(5)) for each in (first, second))
    np.testing.assert_array_equal(one, again)
    assert one.dtype == np.uint8
    assert not np.array_equal(one, image)
    assert not np.array_equal(one, first(image, np.random.default_rng(6)))


def test_transforms_are_applied_in_order(image):
    both = AlbumentationsTransform([{"name": "InvertImg", "p": 1.0}, {"name": "ToGray", "p": 1.0}])
    transformed = both(image, np.random.default_rng(0))
    gray = 255 - image.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(transformed - gray[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            {"name": "GausNoise"},
            "augment.albumentations.0.name: no transform of pixels 'GausNoise' in",
        ),
        ({"name": "HorizontalFlip"}, "no transform of pixels 'HorizontalFlip'"),
        ({"p": 0.5}, "no transform of pixels ''"),
        (
            {"name": "GaussNoise", "strength": 1},
            "augment.albumentations.0: GaussNoise: .*'strength'",
        ),
        (
            {"name": "GaussNoise", "p": 3},
            "augment.albumentations.0: GaussNoise: .*less than or equal to 1",
        ),
    ],
)
def test_invalid_transform_is_an_error_of_one_line(transform, message):
    with pytest.raises(ConfigError, match=message) as caught:
        AlbumentationsTransform([transform])
    assert "\n" not in str(caught.value)
