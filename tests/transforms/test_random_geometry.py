"""The distribution of training views."""

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


def test_the_same_generator_draws_the_same_views():
    assert draws(EVERYTHING, make_sample()) == draws(EVERYTHING, make_sample())
    assert len({(view.crop_box, view.angle) for view in draws(EVERYTHING, make_sample())}) > 50


def test_no_augmentation_shows_the_whole_image():
    settings = AugmentConfig(flip_prob=0)
    assert set(draws(settings, make_sample(), size=(20, 30))) == {
        GeometricTransform((0, 0, *SIZE), (20, 30))
    }


def test_values_stay_within_their_bounds():
    views = draws(EVERYTHING, make_sample(), count=400)
    zooms, angles = ([getattr(view, name) for view in views] for name in ("scale", "angle"))
    assert 0.5 <= min(zooms) < 0.6 < 1.9 < max(zooms) <= 2
    assert -20 <= min(angles) < -18 < 18 < max(angles) <= 20
    assert 0.4 < np.mean([view.flip for view in views]) < 0.6


@pytest.mark.parametrize("chance", [0, 1])
def test_flip_is_a_chance(chance):
    views = draws(AugmentConfig(flip_prob=chance), make_sample())
    assert {view.flip for view in views} == {bool(chance)}


def test_zoom_choices_about_the_centre():
    views = draws(AugmentConfig(scales=(1.0, 1.25, 2.0), flip_prob=0), make_sample())
    assert {(view.scale, view.crop_box) for view in views} == {
        (1.0, (0, 0, 40, 60)),
        (1.25, (4, 6, 32, 48)),
        (2.0, (10, 15, 20, 30)),
    }


@pytest.mark.parametrize("zoom", [0.5, 1.0, 1.6])
def test_a_random_crop_lies_inside_the_image_or_around_it(zoom):
    for view in draws(AugmentConfig(scale_range=(zoom, zoom), crop="random"), make_sample()):
        top, left, height, width = view.crop_box
        assert (height, width) == (round(40 / zoom), round(60 / zoom))
        assert min(0, 40 - height) <= top <= max(0, 40 - height)
        assert min(0, 60 - width) <= left <= max(0, 60 - width)


def test_pad_keeps_native_pixels():
    view = draws(
        AugmentConfig(crop="random", flip_prob=0), make_sample(), fit="pad", size=(32, 48)
    )[0]
    assert view.crop_box[2:] == view.size == (32, 48)
    view = draws(AugmentConfig(flip_prob=0), make_sample(), fit="pad", size=(64, 64))[0]
    assert view.crop_box == (-12, -2, 64, 64)


def test_a_view_of_one_class_is_drawn_again():
    """The right part holds the only other class, behind a strip of void, which does not count."""
    semseg = np.zeros(SIZE, np.uint8)
    semseg[:, 44:52] = IGNORE_INDEX
    semseg[:, 52:] = 1
    settings = {"scale_range": (3.0, 3.0), "crop": "random"}

    def share_mixed(ratio: float, sample: Sample) -> float:
        views = draws(AugmentConfig(**settings, cat_max_ratio=ratio), sample, count=200)
        return float(np.mean([view.crop_box[1] + 20 > 52 for view in views]))

    assert share_mixed(1.0, make_sample(semseg)) < 0.4
    assert share_mixed(0.99, make_sample(semseg)) > 0.75
    assert share_mixed(0.99, make_sample()) < 0.4
