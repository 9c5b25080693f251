"""A task of one's own: depth predicted as its logarithm, so that it is never negative."""

from __future__ import annotations

import math

from torch import Tensor

from densemtl.losses.masked_reduction import fill_ignored, masked_mean
from densemtl.tasks.depth import Depth


class LogDepth(Depth):
    """Logits are log metres: labels, metrics and colours are those of depth."""

    def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean absolute difference of the logarithms over valid pixels."""
        valid = self.compute_valid_mask(target).unsqueeze(1)
        metres = fill_ignored(target, valid).clamp(min=1e-3)
        return masked_mean((logits.float() - metres.log()).abs(), valid)

    def decode(self, logits: Tensor) -> Tensor:
        """Bx1xHxW logits -> metres."""
        return logits.float().exp()

    def inverse_transform_logits(self, logits: Tensor, scale: float, flip: bool) -> Tensor:
        """What looks nearer by `scale` is that much further away: a sum, in logarithms."""
        straight = logits.flip(-1) if flip else logits
        return straight + math.log(scale)
