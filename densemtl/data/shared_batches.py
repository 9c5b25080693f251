"""Transfer of batches from worker processes in shared memory that is used again.

torch creates new shared memory for each tensor, and the operating system clears its pages: several
milliseconds per image. Here, each worker has a few blocks of shared memory. A batch is copied to a
free block, and the block is free again when no tensor of the batch is left in the main process.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from densemtl.types import Batch, CachedFeatures

MAX_BLOCKS = 8
"""Number of blocks that a worker keeps: prefetched batches, and those that are in use."""

ALIGNMENT = 64
"""Tensors start at multiples of this number of bytes. The first such unit of a block holds its
state: 1 while the main process may read it, and otherwise 0."""

_Layout = tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]]
"""Position in the block in bytes, type, shape and strides of a tensor."""


def can_share_batches() -> bool:
    """Return whether this is a worker process of a data loader whose blocks can be used again.

    Returns:
        True on Linux, where torch transfers shared memory as file descriptors.
    """
    if torch.utils.data.get_worker_info() is None:
        return False
    strategy = torch.multiprocessing.get_sharing_strategy()  # type: ignore[no-untyped-call]
    return bool(strategy == "file_descriptor")


class BlockPool:
    """Blocks of shared memory of one worker process."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []

    def share(self, batch: Batch) -> SharedBatch:
        """Copy a batch to a free block.

        Args:
            batch: the batch, on the CPU.

        Returns:
            An object that is unpickled as an equal batch.
        """
        layouts, end = [], ALIGNMENT
        for tensor in batch.list_tensors():
            stride = torch.empty_like(tensor, device="meta").stride()  # dense, in the same order
            layouts.append((end, tensor.dtype, tuple(tensor.shape), stride))
            end += math.ceil(tensor.nbytes / ALIGNMENT) * ALIGNMENT
        block = self._take_block(end)
        for tensor, layout in zip(batch.list_tensors(), layouts, strict=True):
            _view(block, layout).copy_(tensor)
        return SharedBatch(block, layouts, batch)

    def _take_block(self, size: int) -> Tensor:
        """Return a free block of at least `size` bytes, and mark it as used."""
        block = next((each for each in self._blocks if each.numel() >= size and not each[0]), None)
        if block is None:
            used = [each for each in self._blocks if each[0]]
            block = torch.empty(size, dtype=torch.uint8)
            block.share_memory_()  # type: ignore[no-untyped-call]
            # Blocks that are free but too small are dropped.
            self._blocks = [*used, block] if len(used) < MAX_BLOCKS else used
        block[0] = 1
        return block


@dataclass(frozen=True)
class SharedBatch:
    """Batch in a block of shared memory, which is unpickled as a `Batch`.

    Attributes:
        block: the block.
        layouts: position of each tensor.
        batch: the batch, of which only the other fields are pickled.
    """

    block: Tensor
    layouts: Sequence[_Layout]
    batch: Batch

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        batch = self.batch
        size = None if batch.features is None else batch.features.image_size
        fields = (list(batch.targets), batch.ids, batch.placements, size)
        return _receive_batch, (self.block, self.layouts, *fields)


def _receive_batch(
    block: Tensor,
    layouts: Sequence[_Layout],
    tasks: Sequence[str],
    ids: list[str],
    placements: list[Any],
    image_size: tuple[int, int] | None,
) -> Batch:
    """Create a batch whose tensors are in the block, and free the block after the last of them."""
    memory, state = block.numpy(), block.numpy()[:1]
    # Each tensor refers to the first array. NumPy writes the state, since torch rejects changes of
    # tensors that were received in inference mode outside of it.
    weakref.finalize(memory, state.fill, 0).atexit = False
    tensors = [_view(torch.from_numpy(memory[:]), layout) for layout in layouts]
    image, *others = tensors
    targets = dict(zip(tasks, others, strict=False))
    maps = tuple(others[len(tasks) :])
    features = None if image_size is None else CachedFeatures(maps, image_size)
    return Batch(image, targets, ids, placements, features)


def _view(block: Tensor, layout: _Layout) -> Tensor:
    """Return the tensor at a position of a block, which shares its memory."""
    start, dtype, shape, stride = layout
    end = start + math.prod(shape) * dtype.itemsize
    return block[start:end].view(dtype).as_strided(shape, stride)
