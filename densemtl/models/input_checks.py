"""Batches that leave a backbone's batch normalisation nothing to normalise."""

from __future__ import annotations

from torch import nn

from densemtl.errors import ModelError
from densemtl.layers.common import BatchNorm
from densemtl.models.multi_task_model import DenseModel
from densemtl.types import Size


def check_pixels(model: DenseModel, size: Size, images: int) -> None:
    """Refuse to train on one image whose coarsest map is a single pixel.

    Args:
        model: to be trained.
        size: (height, width) of its input.
        images: in a batch.

    Raises:
        ModelError: a normalisation of the backbone would see one value a channel.
    """
    alone = images == 1 and max(size) <= model.multiple
    if alone and any(_needs_several(each) for each in model.modules()):
        raise ModelError(
            f"input.size: {list(size)} is one pixel at the backbone's stride of {model.multiple},"
            " too little to learn from one image at a time: raise it, or loader.batch_size"
        )


def _needs_several(module: nn.Module) -> bool:
    """Values a channel; our own normalisation does with one."""
    return isinstance(module, nn.BatchNorm2d) and not isinstance(module, BatchNorm)
