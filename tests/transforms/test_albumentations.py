"""Transforms of albumentations: seeded by the sample, of pixels alone; mistakes are one line."""

from __future__ import annotations

import numpy as np
import pytest

from densemtl.errors import ConfigError
from densemtl.transforms.albumentations import AlbumentationsTransform

NOISE = {"name": "GaussNoise", "p": 1.0}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (16, 20, 3)).astype(np.uint8)


def test_a_sample_has_its_own_noise_and_always_the_same(image):
    first, second = AlbumentationsTransform([NOISE]), AlbumentationsTransform([NOISE])
    second(image, np.random.default_rng(9))
    one, again = (each(image, np.random.default_rng(5)) for each in (first, second))
    np.testing.assert_array_equal(one, again)
    assert one.dtype == np.uint8
    assert not np.array_equal(one, image)
    assert not np.array_equal(one, first(image, np.random.default_rng(6)))


def test_transforms_come_one_after_the_other(image):
    both = AlbumentationsTransform([{"name": "InvertImg", "p": 1.0}, {"name": "ToGray", "p": 1.0}])
    found = both(image, np.random.default_rng(0))
    grey = 255 - image.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(found - grey[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("transform", "told"),
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
def test_mistakes_are_one_line(transform, told):
    with pytest.raises(ConfigError, match=told) as caught:
        AlbumentationsTransform([transform])
    assert "\n" not in str(caught.value)
