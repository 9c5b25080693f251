"""Batches that leave a backbone's batch normalisation nothing to normalise."""

from __future__ import annotations

from torch import nn

from densemtl.errors import ModelError
from densemtl.layers.common import SinglePixelSafeBatchNorm2d
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.types import Size


def check_min_feature_size(model: MultiTaskModel, size: Size, batch_size: int) -> None:
    """Refuse to train on one image whose coarsest map is a single pixel.

    Args:
        model: to be trained.
        size: (height, width) of its input.
        batch_size: in a batch.

    Raises:
        ModelError: a normalisation of the backbone would see one value a channel.
    """
    alone = batch_size == 1 and max(size) <= model.size_divisor
    if alone and any(_is_unsafe_batch_norm(module) for module in model.modules()):
        raise ModelError(
            f"input.size: {list(size)} is one pixel at the backbone's stride of"
            f" {model.size_divisor}, too little to learn from one image at a time: raise it, or"
            " loader.batch_size"
        )


def _is_unsafe_batch_norm(module: nn.Module) -> bool:
    """Values a channel; our own normalisation does with one."""
    return isinstance(module, nn.BatchNorm2d) and not isinstance(module, SinglePixelSafeBatchNorm2d)
