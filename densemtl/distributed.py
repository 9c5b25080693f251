"""What several processes that train one model together agree on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train together; 1 where none were started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def mean_over_ranks(tensors: Iterable[Tensor]) -> None:
    """Put in place of each tensor its mean over all processes; alone, leave it.

    Args:
        tensors: floating point, of the same shapes, types and order in every process.
    """
    if world_size() == 1:
        return
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for alike in kinds.values():
        _mean(alike)


def _mean(tensors: list[Tensor]) -> None:
    """As one message, whatever the tensors' layouts in memory."""
    joined = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(joined)
    joined /= world_size()
    parts = joined.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))
