"""Custom task: the network predicts the logarithm of depth, so that depth is always positive."""

from __future__ import annotations

import math

from torch import Tensor

from densemtl.losses.masked_reduction import fill_ignored, masked_mean
from densemtl.tasks.depth import Depth


class LogDepth(Depth):
    """Depth estimation with logits in log meters; labels, metrics and colors are those of `Depth`.

    The constructor is that of `Depth`.
    """

    def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the mean absolute difference of the logarithms over valid pixels.

        Args:
            logits: predicted logarithm of depth in meters, shape (B, 1, H, W).
            target: depth in meters, same shape; NaN marks ignored pixels.

        Returns:
            The loss, a scalar.
        """
        valid = self.compute_valid_mask(target).unsqueeze(1)
        meters = fill_ignored(target, valid).clamp(min=1e-3)
        return masked_mean((logits.float() - meters.log()).abs(), valid)

    def decode(self, logits: Tensor) -> Tensor:
        """Convert logits to depth.

        Args:
            logits: logarithm of depth, shape (B, 1, H, W).

        Returns:
            Depth in meters, same shape.
        """
        return logits.float().exp()

    def inverse_transform_logits(self, logits: Tensor, scale: float, flip: bool) -> Tensor:
        """Undo the effect of a zoom and a flip of the image on the logits.

        An object in an image zoomed by `scale` appears closer by this factor, so depth is
        multiplied by `scale`. In logarithms this is a sum.

        Args:
            logits: logits of the transformed image, shape (B, 1, H, W).
            scale: zoom factor of the image.
            flip: whether the image was flipped horizontally.

        Returns:
            Logits of the original image, same shape.
        """
        unflipped = logits.flip(-1) if flip else logits
        return unflipped + math.log(scale)
