"""Order of training images, of one dataset or of a mixture of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest

from densemtl.data import samplers
from densemtl.data.mixture import Mixture
from densemtl.data.samplers import EpochSampler, MixedSampler
from densemtl.errors import ConfigError

SIZES = (5, 12, 3)
NAMES = ("a", "b", "c")
ONE_SET = {"one_set_per_batch": True}


def make_sampler(
    weights: Sequence[float] = SIZES,
    *,
    epoch_images: int = sum(SIZES),
    batch_size: int = 4,
    one_set_per_batch: bool = False,
    shard_sizes: Sequence[Sequence[int]] = ((), (), ()),
) -> MixedSampler:
    mixture = Mixture(NAMES, SIZES, weights, shard_sizes, epoch_images, one_set_per_batch)
    return MixedSampler(mixture, 7, batch_size)


def draw(sampler: EpochSampler, epochs: Sequence[int] = (0,)) -> list[tuple[int, int]]:
    """Return (visit or epoch, index) of all images in some epochs."""
    drawn: list[tuple[int, int]] = []
    for epoch in epochs:
        sampler.epoch = epoch
        drawn += list(sampler)
    return drawn


def find_set(index: int) -> int:
    return 0 if index < 5 else 1 if index < 17 else 2


def test_proportional_weights_visit_every_image_once_per_epoch() -> None:
    for epoch in range(3):
        drawn = draw(make_sampler(), [epoch])
        assert sorted(index for _, index in drawn) == list(range(20))
        assert {visit for visit, _ in drawn} == {epoch}


def test_epochs_and_seeds_have_different_orders() -> None:
    first, second = (draw(make_sampler(), [epoch]) for epoch in (0, 1))
    assert [index for _, index in first] != [index for _, index in second]
    other = MixedSampler(make_sampler().mixture, 8, 4)
    assert draw(other) != first


def test_sets_are_interleaved() -> None:
    order = [find_set(index) for _, index in draw(make_sampler(), [0])]
    assert sum(one != two for one, two in pairwise(order)) > 5


@pytest.mark.parametrize("weights", [(1, 1, 1), (5, 1, 2), (0.2, 0.4, 1.4)])
def test_weights_are_shares_of_every_epoch_and_images_are_visited_equally(weights) -> None:
    sampler = make_sampler(weights, epoch_images=30)
    total = Counter[int]()
    for epoch in range(4):
        drawn = draw(sampler, [epoch])
        counts = Counter(find_set(index) for _, index in drawn)
        for number, weight in enumerate(weights):
            assert abs(counts[number] - 30 * weight / sum(weights)) < 1
        total.update(index for _, index in drawn)
    for number in range(3):
        visits = [count for index, count in total.items() if find_set(index) == number]
        assert max(visits) - min(visits) <= 1


def test_repeated_images_of_an_epoch_are_augmented_differently() -> None:
    """Augmentation is seeded by (visit, index), which must never repeat in a run."""
    drawn = draw(make_sampler((1, 1, 8), epoch_images=40), range(3))
    assert len(set(drawn)) == len(drawn) == 120
    assert Counter(index for _, index in drawn)[18] > 20


@pytest.mark.parametrize("options", [{}, ONE_SET])
def test_resumed_epoch_has_the_remaining_images(options) -> None:
    sampler = make_sampler((2, 1, 1), epoch_images=24, **options)
    whole = draw(sampler, [5])
    resumed = make_sampler((2, 1, 1), epoch_images=24, **options)
    resumed.start_index = 8
    assert draw(resumed, [5]) == whole[8:]
    assert len(resumed) == 16


@pytest.mark.parametrize("options", [{}, ONE_SET])
def test_two_ranks_get_the_batches_of_one_process(options, monkeypatch) -> None:
    whole = draw(make_sampler(**options), [1])
    monkeypatch.setattr(samplers, "get_world_size", lambda: 2)
    ranks = []
    for rank in (0, 1):
        monkeypatch.setattr(samplers, "get_rank", lambda rank=rank: rank)
        ranks.append(draw(make_sampler(**options), [1]))
    for start in range(0, len(whole), 4):
        halves = [rank[start // 2 : start // 2 + 2] for rank in ranks]
        assert sorted(halves[0] + halves[1]) == sorted(whole[start : start + 4])


def test_batches_of_one_set() -> None:
    sampler = make_sampler((1, 2, 1), epoch_images=35, batch_size=4, **ONE_SET)
    assert sampler.length == 32  # three images do not fill a batch
    drawn = draw(sampler, [0, 1])
    batches = [drawn[start : start + 4] for start in range(0, len(drawn), 4)]
    sets = [{find_set(index) for _, index in batch} for batch in batches]
    assert all(len(each) == 1 for each in sets)
    assert Counter(each.pop() for each in sets) == {0: 4, 1: 8, 2: 4}
    assert len(set(drawn)) == len(drawn)


def test_shards_of_a_set_stay_together() -> None:
    mixture = Mixture(("a", "b"), (160, 10), (160, 10), ((4,) * 40, ()), 170)
    order = [index for _, index in MixedSampler(mixture, 3, 4) if index < 160]
    assert sorted(order) == list(range(160))
    first = {index // 4 for index in order[:32]}
    assert len(first) == samplers.SHUFFLE_BUFFER_SHARDS


@pytest.mark.parametrize(
    ("weights", "options"), [((1, 1, 1e-6), {}), ((1, 1, 0.1), ONE_SET), ((8, 8, 1), ONE_SET)]
)
def test_set_that_is_never_drawn_is_an_error(weights, options) -> None:
    with pytest.raises(ConfigError, match=r"data\.weights: .* none of 'c'"):
        make_sampler(weights, **options)


def test_share_out_is_exact_for_many_weights() -> None:
    mixture = Mixture(range(7), [1] * 7, [0.1, 0.7, 1.3, 2, 3.3, 0.4, 0.2], ((),) * 7, 1)
    for count in range(60, 90):
        shares = mixture.share_out(count)
        assert sum(shares) == count
        exact = [count * weight / 8 for weight in mixture.weights]
        assert all(abs(one - two) < 1 for one, two in zip(shares, exact, strict=True))
