"""Check that training batches are large enough for batch normalization."""

from __future__ import annotations

from torch import nn

from densemtl.errors import ModelError
from densemtl.layers.common import SinglePixelSafeBatchNorm2d
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.types import Size


def check_min_feature_size(model: MultiTaskModel, size: Size, batch_size: int) -> None:
    """Check that batch normalization of the backbone gets more than one value per channel.

    Args:
        model: the model to train.
        size: (height, width) of its input in pixels.
        batch_size: number of images per batch.

    Raises:
        ModelError: if batches consist of one image whose coarsest feature map is a single pixel,
            and the backbone has batch normalization.
    """
    alone = batch_size == 1 and max(size) <= model.size_divisor
    if alone and any(_is_unsafe_batch_norm(module) for module in model.modules()):
        raise ModelError(
            f"input.size: {list(size)} is one pixel at the backbone's stride of"
            f" {model.size_divisor}, too small to train on one image at a time: increase"
            " input.size or loader.batch_size"
        )


def _is_unsafe_batch_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch normalization that fails for one value per channel."""
    return isinstance(module, nn.BatchNorm2d) and not isinstance(module, SinglePixelSafeBatchNorm2d)
