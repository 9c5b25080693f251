"""Distribution of random geometric transforms."""

from __future__ import annotations

import numpy as np
import pytest

from densemtl.config.sections import AugmentConfig
from densemtl.transforms.geometry import GeometricTransform
from densemtl.transforms.random_geometry import RandomGeometry
from densemtl.types import IGNORE_INDEX, Sample

SIZE = (40, 60)


def make_sample(semseg: np.ndarray | None = None) -> Sample:
    targets = {} if semseg is None else {"semseg": semseg}
    return Sample(np.zeros((*SIZE, 3), np.uint8), targets, "one")


def draws(settings: AugmentConfig, sample: Sample, fit="resize", size=SIZE, count=60):
    rng = np.random.default_rng(3)
    return [RandomGeometry(settings).sample(sample, size, fit, rng) for _ in range(count)]


EVERYTHING = AugmentConfig(scale_range=(0.5, 2.0), crop="random", max_rotation=20, flip_prob=0.5)


def test_transforms_depend_on_the_generator_only():
    assert draws(EVERYTHING, make_sample()) == draws(EVERYTHING, make_sample())
    assert len({(each.crop_box, each.angle) for each in draws(EVERYTHING, make_sample())}) > 50


def test_no_augmentation_resizes_the_whole_image():
    settings = AugmentConfig(flip_prob=0)
    assert set(draws(settings, make_sample(), size=(20, 30))) == {
        GeometricTransform((0, 0, *SIZE), (20, 30))
    }


def test_values_stay_within_their_bounds():
    transforms = draws(EVERYTHING, make_sample(), count=400)
    scales, angles = ([getattr(each, name) for each in transforms] for name in ("scale", "angle"))
    assert 0.5 <= min(scales) < 0.6 < 1.9 < max(scales) <= 2
    assert -20 <= min(angles) < -18 < 18 < max(angles) <= 20
    assert 0.4 < np.mean([each.flip for each in transforms]) < 0.6


@pytest.mark.parametrize("flip_prob", [0, 1])
def test_flip_prob_is_the_probability_of_a_flip(flip_prob):
    transforms = draws(AugmentConfig(flip_prob=flip_prob), make_sample())
    assert {each.flip for each in transforms} == {bool(flip_prob)}


def test_scales_are_chosen_about_the_center():
    transforms = draws(AugmentConfig(scales=(1.0, 1.25, 2.0), flip_prob=0), make_sample())
    assert {(each.scale, each.crop_box) for each in transforms} == {
        (1.0, (0, 0, 40, 60)),
        (1.25, (4, 6, 32, 48)),
        (2.0, (10, 15, 20, 30)),
    }


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.6])
def test_random_crop_is_inside_the_image_or_contains_it(scale):
    for each in draws(AugmentConfig(scale_range=(scale, scale), crop="random"), make_sample()):
        top, left, height, width = each.crop_box
        assert (height, width) == (round(40 / scale), round(60 / scale))
        assert min(0, 40 - height) <= top <= max(0, 40 - height)
        assert min(0, 60 - width) <= left <= max(0, 60 - width)


def test_pad_keeps_original_pixels():
    transform = draws(
        AugmentConfig(crop="random", flip_prob=0), make_sample(), fit="pad", size=(32, 48)
    )[0]
    assert transform.crop_box[2:] == transform.size == (32, 48)
    transform = draws(AugmentConfig(flip_prob=0), make_sample(), fit="pad", size=(64, 64))[0]
    assert transform.crop_box == (-12, -2, 64, 64)


def test_crop_of_one_class_is_sampled_again():
    """The right part has the only other class, after a strip of ignored pixels."""
    semseg = np.zeros(SIZE, np.uint8)
    semseg[:, 44:52] = IGNORE_INDEX
    semseg[:, 52:] = 1
    settings = {"scale_range": (3.0, 3.0), "crop": "random"}

    def fraction_with_two_classes(ratio: float, sample: Sample) -> float:
        transforms = draws(AugmentConfig(**settings, cat_max_ratio=ratio), sample, count=200)
        return float(np.mean([each.crop_box[1] + 20 > 52 for each in transforms]))

    assert fraction_with_two_classes(1.0, make_sample(semseg)) < 0.4
    assert fraction_with_two_classes(0.99, make_sample(semseg)) > 0.75
    assert fraction_with_two_classes(0.99, make_sample()) < 0.4
