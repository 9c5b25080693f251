"""Copies of training batches to a GPU while it computes the previous step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from densemtl.types import Batch


def copy_to_device(
    steps: Iterable[Sequence[Batch]], device: torch.device
) -> Iterator[Sequence[Batch]]:
    """Copy the batches of each step to a CUDA GPU by a stream of their own.

    A step returns when its work is submitted to the GPU. The next batches are then copied while the
    GPU computes, and only the first operations that read them wait for the copy. Batches and their
    order are the same.

    Args:
        steps: the batches of each step, in pinned memory.
        device: the device of the model.

    Yields:
        The batches of a step, on the device; on other devices than CUDA GPUs, unchanged.
    """
    if device.type != "cuda":
        yield from steps
        return
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batches in steps:
        with torch.cuda.stream(copies):
            moved = [batch.to(device) for batch in batches]
        current = torch.cuda.current_stream(device)
        current.wait_stream(copies)
        for batch in moved:
            for tensor in batch.list_tensors():
                tensor.record_stream(current)  # its memory was allocated for the other stream
        yield moved
