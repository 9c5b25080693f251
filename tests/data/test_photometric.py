"""Random colour: reproducible from the generator, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from densemtl.data.photometric import Photometric
from densemtl.settings import JitterSettings

NONE = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (8, 9, 3)).astype(np.uint8)


def test_colours_come_from_the_generator_alone(image):
    before = image.copy()
    first, second = Photometric(JitterSettings()), Photometric(JitterSettings())
    second(image, np.random.default_rng(9))
    pictures = [jitter(image, np.random.default_rng(5)) for jitter in (first, second)]
    np.testing.assert_array_equal(*pictures)
    assert pictures[0].dtype == np.uint8
    assert not np.array_equal(pictures[0], first(image, np.random.default_rng(6)))
    np.testing.assert_array_equal(image, before)


def test_no_jitter_changes_nothing(image):
    jitter = Photometric(JitterSettings(**NONE))
    np.testing.assert_array_equal(jitter(image, np.random.default_rng(0)), image)


@pytest.mark.parametrize("strength", [0.2, 0.6])
def test_brightness_scales_within_its_bounds(strength):
    grey = np.full((4, 4, 3), 100, np.uint8)
    jitter = Photometric(JitterSettings(**NONE | {"brightness": strength}))
    rng = np.random.default_rng(0)
    values = [float(jitter(grey, rng).mean()) for _ in range(40)]
    assert 99 * (1 - strength) <= min(values) < 100 * (1 - 0.8 * strength)
    assert 100 * (1 + 0.8 * strength) < max(values) <= 101 * (1 + strength)


def test_saturation_leaves_grey_alone():
    grey = np.full((4, 4, 3), 100, np.uint8)
    jitter = Photometric(JitterSettings(**NONE | {"saturation": 1.0, "hue": 0.5}))
    np.testing.assert_array_equal(jitter(grey, np.random.default_rng(0)), grey)
