"""Lovasz-Softmax loss, a surrogate of the intersection over union."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from densemtl.losses.base import count_labeled_images
from densemtl.losses.class_logits import CE_IGNORE_INDEX, ClassLoss, mask_ids
from densemtl.losses.eager_gradient import compute_loss_with_eager_gradient
from densemtl.losses.masked_reduction import joint_mean
from densemtl.ops.lazy_upsampling import LazyLogits


class Lovasz(ClassLoss):
    """Lovasz-Softmax loss, averaged over the classes of each image, and over images.

    Berman et al., "The Lovasz-Softmax loss", CVPR 2018, equations 9 and 11, with the classes that
    occur in the image. It is computed for each image, as the sorted errors of the joint batch would
    have to be gathered from all ranks. Binary labels have two classes.

    Args:
        labels: the labels of the task.

    Example:
        >>> import torch
        >>> from densemtl.losses.base import LabelInfo
        >>> target = torch.tensor([[[0, 1]]])
        >>> loss = Lovasz(LabelInfo("classes", 2, 2))
        >>> loss.compute(torch.zeros(1, 2, 1, 2), target, target != 255)
        tensor(0.5000)
    """

    def _compute_from_ids(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return the mean over the images with valid pixels."""
        images = [_compute_image_loss(*image) for image in zip(logits, ids, strict=True)]
        return joint_mean(torch.stack(images).sum(), count_labeled_images(ids != CE_IGNORE_INDEX))

    def compute_low_res(
        self, lazy_logits: LazyLogits, target: Tensor, valid: Tensor, **image: Tensor
    ) -> Tensor:
        """Compute the loss image by image, since sorting needs several maps per class.

        Args:
            lazy_logits: float32 logits of shape (B, C, h, w), with the steps of their upsampling.
            target: class ids, shape (B, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).
            **image: not used.

        Returns:
            A scalar; 0 if no pixel is valid.
        """

        def compute_one(ids: Tensor, logits: Tensor) -> Tensor:
            full_size = replace(lazy_logits, logits=logits).upsample()
            return _compute_image_loss(self.to_class_logits(full_size)[0], ids)

        parts = [
            ((slice(index, index + 1),), partial(compute_one, ids))
            for index, ids in enumerate(mask_ids(target, valid))
        ]
        total = compute_loss_with_eager_gradient(lazy_logits.logits, parts)
        return joint_mean(total, self.count_labels(target, valid))

    def count_labels(self, target: Tensor, valid: Tensor) -> Tensor:
        """Count the images with valid pixels.

        Args:
            target: class ids, shape (B, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            An integer scalar.
        """
        return count_labeled_images(valid)


def _compute_image_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the mean over the classes of one image, from (C, H, W) and (H, W)."""
    probabilities, ids = logits.softmax(dim=0).flatten(1), ids.flatten()
    is_class = ids == torch.arange(len(probabilities), device=ids.device).unsqueeze(1)
    errors = torch.where(is_class, 1 - probabilities, probabilities)
    # Ignored pixels are sorted to the end, where they do not change the gradient of the others.
    errors = torch.where(ids == CE_IGNORE_INDEX, -1.0, errors)
    errors, order = errors.sort(dim=1, descending=True)
    losses = (errors.clamp(min=0) * _compute_jaccard_steps(is_class.gather(1, order))).sum(1)
    occurs = is_class.any(dim=1)
    return torch.where(occurs, losses, 0.0).sum() / occurs.sum().clamp(min=1)


def _compute_jaccard_steps(is_class: Tensor) -> Tensor:
    """Return by how much each further wrong pixel increases the Jaccard loss, shape (C, pixels).

    This is the difference of consecutive values of 1 - intersection / union, without cancellation.
    """
    hits = is_class.cumsum(dim=1)
    remaining = hits[:, -1:] - hits
    union = hits[:, -1:] + (~is_class).cumsum(dim=1)
    return torch.where(is_class, 1 / union, remaining / (union * (union - 1).clamp(min=1)))
