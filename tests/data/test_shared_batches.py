"""Tests of batches that worker processes return in shared memory that is used again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.data.shared_batches import MAX_BLOCKS, BlockPool, SharedBatch
from densemtl.types import Batch, CachedFeatures, ImagePlacement

NUM_BATCHES = MAX_BLOCKS + 3


class Numbers(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index

    def __len__(self) -> int:
        return NUM_BATCHES


def make_batch(numbers: Sequence[int]) -> Batch:
    """Return a batch of several types and layouts whose size depends on the number."""
    (number,) = numbers
    generator = torch.Generator().manual_seed(number)
    image = torch.randint(0, 255, (2, 3 + number, 5, 3), dtype=torch.uint8, generator=generator)
    depth = torch.rand(2, 1, 3 + number, 5, generator=generator)
    depth[0, 0, 0, 0] = torch.nan
    targets = {"semseg": torch.full((1, 1), number % 250).byte().expand(2, 7), "depth": depth}
    features = CachedFeatures((torch.rand(1, 2, generator=generator), torch.empty(0, 4)), (4, 5))
    placement = ImagePlacement((3 + number, 5), (0, 0, 3 + number, 5))
    return Batch(
        image.permute(0, 3, 1, 2),
        targets,
        ["a", "b"],
        [placement] * 2,
        features if number % 2 else None,
    )


def list_tensors(batch: Batch) -> list[Tensor]:
    maps = batch.features.maps if batch.features else ()
    return [batch.image, *batch.targets.values(), *maps]


def assert_equal_batches(actual: Batch, expected: Batch) -> None:
    assert list(actual.targets) == list(expected.targets)
    assert (actual.ids, actual.placements) == (expected.ids, expected.placements)
    assert bool(actual.features) == bool(expected.features)
    if actual.features and expected.features:
        assert actual.features.image_size == expected.features.image_size
    for tensor, other in zip(list_tensors(actual), list_tensors(expected), strict=True):
        assert tensor.dtype == other.dtype
        torch.testing.assert_close(tensor, other, rtol=0, atol=0, equal_nan=True)


def receive(shared: SharedBatch) -> Batch:
    function, arguments = shared.__reduce__()
    return function(*arguments)


@pytest.mark.parametrize("inference", [False, True])
def test_batches_of_a_worker_are_equal_while_they_are_kept(inference: bool) -> None:
    """Keep more batches than a worker keeps blocks; then read the loader again."""
    loader = ErrorForwardingDataLoader(
        Numbers(), make_batch, batch_size=1, num_workers=1, persistent_workers=True
    )
    with torch.inference_mode(inference):
        kept = list(loader)
    for number, batch in enumerate(kept):
        assert_equal_batches(batch, make_batch([number]))
        assert batch.image.stride() == make_batch([number]).image.stride()
    for number, batch in enumerate(loader):
        assert_equal_batches(batch, make_batch([number]))
        assert_equal_batches(kept[number], make_batch([number]))


def test_block_is_used_again_after_the_last_tensor() -> None:
    pool = BlockPool()
    first = pool.share(make_batch([9]))
    received = receive(first)
    assert pool.share(make_batch([8])).block is not first.block
    part, expected = received.targets["depth"][1], make_batch([9]).targets["depth"][1]
    del received
    assert pool.share(make_batch([8])).block is not first.block
    assert torch.equal(part, expected)
    del part
    assert pool.share(make_batch([8])).block is first.block


def test_number_of_blocks_is_limited() -> None:
    pool = BlockPool()
    shared = [pool.share(make_batch([0])) for _ in range(MAX_BLOCKS + 2)]
    batches = [receive(each) for each in shared]
    del batches
    blocks = {id(each.block) for each in shared}
    again = [pool.share(make_batch([0])).block for _ in range(MAX_BLOCKS + 2)]
    assert sum(id(block) in blocks for block in again) == MAX_BLOCKS


def test_small_free_block_is_replaced() -> None:
    pool = BlockPool()
    small = pool.share(make_batch([0]))
    receive(small)
    large = pool.share(make_batch([40]))
    assert large.block.numel() > small.block.numel()
    receive(large)
    assert pool.share(make_batch([0])).block is large.block
