"""Maximum matchings of single and consecutive maps, compared with SciPy."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial.distance import cdist

from densemtl.metrics.boundary import augmentation, matching
from densemtl.metrics.boundary.disc_dilation import Disc
from densemtl.metrics.boundary.matching import BoundaryMatcher
from densemtl.ops.thinning import thin

RADII = [0.0, 1.0, 1.5, 2.3, 5.0]


def largest(found, truth, radius):
    """Compute the size of a maximum matching with SciPy, from all distances."""
    near = cdist(np.argwhere(found), np.argwhere(truth)) <= radius
    if not near.size:
        return 0
    return int((maximum_bipartite_matching(csr_array(near), "column") >= 0).sum())


def is_matchable(matched, truth, radius):
    """Return whether all matched pixels can be matched in one matching."""
    return largest(matched, truth, radius) == matched.sum()


def noise(rng, shape, density):
    return rng.random(shape) < density


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("seed", range(60))
def test_matching_has_maximum_size(seed, radius):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 16, 2))
    found, truth = (noise(rng, shape, rng.uniform(0.02, 0.7)) for _ in range(2))
    matched = BoundaryMatcher(truth, radius).match(found)
    assert not (matched & ~found).any()
    assert matched.sum() == largest(found, truth, radius)
    assert is_matchable(matched, truth, radius)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("radius", [1.5, 2.9])
def test_matching_after_other_maps_has_maximum_size(seed, radius):
    """One matcher is used for the maps of consecutive thresholds, and then for different maps."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(8, 24, 2))
    strength, truth = rng.random(shape), noise(rng, shape, 0.15)
    maps = [thin(strength > level) for level in np.linspace(0.95, 0.2, 6)]
    maps += [np.zeros(shape, bool), np.ones(shape, bool), noise(rng, shape, 0.1)]
    matcher = BoundaryMatcher(truth, radius)
    for found in maps:
        matched = matcher.match(found)
        assert matched.sum() == largest(found, truth, radius)
        assert is_matchable(matched, truth, radius)


@pytest.fixture(params=["nearest first", "push-relabel only"])
def algorithm(request, monkeypatch):
    """Use both steps of the algorithm, or only push-relabel, as for maps of few pixels."""
    if request.param == "push-relabel only":
        monkeypatch.setattr(matching, "match_nearest", lambda *_: None)
        monkeypatch.setattr(augmentation, "CHUNK_SIZE", 50)


@pytest.mark.parametrize("radius", [1.2, 2.0, 6.2])
@pytest.mark.parametrize("seed", range(25))
def test_both_algorithms_have_maximum_size(seed, radius, algorithm):
    rng = np.random.default_rng(seed)
    shape = (19, 23)
    truth = noise(rng, shape, rng.uniform(0.1, 0.6))
    matcher = BoundaryMatcher(truth, radius)
    for density in (0.1, 0.4, 0.6):
        found = noise(rng, shape, density)
        matched = matcher.match(found)
        assert matched.sum() == largest(found, truth, radius)
        assert is_matchable(matched, truth, radius)


def test_matching_is_symmetric():
    rng = np.random.default_rng(0)
    for _ in range(30):
        a, b = noise(rng, (20, 20), 0.2), noise(rng, (20, 20), 0.3)
        sizes = {BoundaryMatcher(x, 2.1).match(y).sum() for x, y in ((a, b), (b, a))}
        transposed = BoundaryMatcher(a.T, 2.1).match(b.T).sum()
        assert sizes == {transposed}


def stripes(period, axis):
    index = np.indices((60, 70))[axis]
    return index % period == 0


HARD = {
    "columns2": stripes(2, 1),
    "rows3": stripes(3, 0),
    "grid": stripes(5, 0) | stripes(5, 1),
    "board": np.indices((60, 70)).sum(0) % 2 == 0,
    "comb": np.indices((60, 70)).sum(0) % 7 == 0,
    "all": np.ones((60, 70), bool),
    "one": np.indices((60, 70)).sum(0) == 0,
    "halves": np.where(np.indices((60, 70))[1] < 35, stripes(2, 0), stripes(4, 1)),
}


@cache
def largest_of_patterns(found, truth):
    return largest(HARD[found], HARD[truth], 1.5)


@pytest.mark.parametrize("truth", HARD)
@pytest.mark.parametrize("found", HARD)
def test_matching_of_regular_patterns_has_maximum_size(found, truth, algorithm):
    size = largest_of_patterns(*sorted((found, truth)))
    assert BoundaryMatcher(HARD[truth], 1.5).match(HARD[found]).sum() == size


def test_radius_is_inclusive():
    truth = np.zeros((9, 9), bool)
    truth[0, 0] = True
    found = np.zeros_like(truth)
    found[3, 4] = True
    assert BoundaryMatcher(truth, 5).match(found).sum() == 1
    assert BoundaryMatcher(truth, 4.99).match(found).sum() == 0


def test_long_augmenting_path():
    """Greedy matching leaves both ends of a line unmatched; all pairs must change."""
    truth, found = (np.zeros((1, 400), bool) for _ in range(2))
    truth[0, 0::4] = True
    found[0, 2::4] = True
    truth[0, 398] = True
    found[0, 398] = False
    found[0, 0] = True
    matched = BoundaryMatcher(truth, 2).match(found)
    assert matched.sum() == largest(found, truth, 2) == 100


@pytest.mark.parametrize("radius", [0.0, 1.0, 3.7, 5.0, 70.3])
def test_dilation_equals_all_pixels_within_the_radius(radius):
    mask = noise(np.random.default_rng(3), (23, 90), 0.002)
    disc = Disc(mask.shape, radius)
    near = cdist(np.argwhere(np.ones_like(mask)), np.argwhere(mask)).min(1) <= radius
    assert np.array_equal(
        disc.crop(disc.dilate_mask(disc.pad_and_flatten(mask))), near.reshape(mask.shape)
    )
    pixels = np.flatnonzero(disc.pad_and_flatten(mask))
    by_offset = np.zeros(len(disc.pad_and_flatten(mask)), bool)
    by_offset[pixels[:, None] + disc.offsets] = True
    assert np.array_equal(disc.crop(by_offset), near.reshape(mask.shape))


def count_operations(truth, maps, radius, monkeypatch):
    """Count dilations, push steps and pushed pixels, summed over all maps."""
    counts = {"dilations": 0, "steps": 0, "moves": 0}
    step, dilate = augmentation._push_step, Disc.dilate_packed

    def counted_step(disc, pairs, levels, movers):
        counts["steps"] += 1
        counts["moves"] += len(movers)
        return step(disc, pairs, levels, movers)

    def counted_dilate(disc, words):
        counts["dilations"] += 1
        return dilate(disc, words)

    monkeypatch.setattr(augmentation, "_push_step", counted_step)
    monkeypatch.setattr(Disc, "dilate_packed", counted_dilate)
    matcher = BoundaryMatcher(truth, radius)
    for found in maps:
        matcher.match(found)
    return counts


ADVERSARIAL = {
    "halves": lambda y, x: np.where(x < 80, y % 2 == 0, y % 4 == 0),
    "columns": lambda y, x: x % 2 == 0,
    "rings": lambda y, x: np.hypot(y - 60, x - 80).astype(int) % 3 == 0,
    "denser": lambda y, x: np.cumsum(0.2 + 0.25 * x / 160, 1) % 1 < 0.2 + 0.25 * x / 160,
    "grid": lambda y, x: (x % 3 == 0) | (y % 3 == 0),
    "board": lambda y, x: (x + y) % 2 == 0,
    "all": lambda y, x: x >= 0,
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_operations_on_adversarial_patterns_are_bounded(name, monkeypatch):
    """Surplus pixels may have to be pushed across the image, 3.3 pixels per pair."""
    truth = ADVERSARIAL[name](*np.indices((120, 160)))
    strength = np.random.default_rng(0).random(truth.shape)
    maps = [thin(strength > level) for level in np.linspace(0.9, 0.1, 9)]
    maps += [pattern(*np.indices(truth.shape)) for pattern in ADVERSARIAL.values()]
    counts = count_operations(truth, maps, 3.3, monkeypatch)
    assert counts["dilations"] <= 80 * len(maps)
    assert counts["steps"] <= 150 * len(maps)
    assert counts["moves"] <= truth.sum() * len(maps)


def test_matched_pixels_are_deterministic():
    rng = np.random.default_rng(5)
    truth = noise(rng, (40, 40), 0.1)
    maps = [noise(rng, (40, 40), density) for density in (0.05, 0.1, 0.2)]
    runs = [[*map(BoundaryMatcher(truth, 2.5).match, maps)] for _ in range(2)]
    assert np.array_equal(*runs)


def smallest_distance(found, truth, radius):
    """Compute the sum of distances of the best maximum matching by a dense assignment."""
    distances = cdist(np.argwhere(found), np.argwhere(truth))
    costs = np.where(distances <= radius, distances, 1e4)
    pairs = linear_sum_assignment(costs)
    return costs[pairs][distances[pairs] <= radius].sum()


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.9])
@pytest.mark.parametrize("seed", range(15))
def test_matched_pixels_have_the_smallest_sum_of_distances(seed, radius):
    rng = np.random.default_rng(seed)
    truth = noise(rng, (14, 17), rng.uniform(0.05, 0.5))
    matcher = BoundaryMatcher(truth, radius, minimize_distance=True)
    for density in (0.05, 0.3, 0.5):
        found = noise(rng, truth.shape, density)
        matched = matcher.match(found)
        assert not (matched & ~found).any()
        assert matched.sum() == largest(found, truth, radius)
        expected = smallest_distance(found, truth, radius)
        assert smallest_distance(matched, truth, radius) == pytest.approx(expected)


def test_nearest_matching_does_not_depend_on_earlier_maps():
    rng = np.random.default_rng(2)
    truth = noise(rng, (40, 40), 0.1)
    maps = [noise(rng, (40, 40), density) for density in (0.05, 0.1, 0.2, 0.4)]
    matcher = BoundaryMatcher(truth, 2.5, minimize_distance=True)
    for found in maps:
        alone = BoundaryMatcher(truth, 2.5, minimize_distance=True).match(found)
        assert np.array_equal(matcher.match(found), alone)
