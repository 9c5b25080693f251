"""Gates of values that exist only in a part of the image (`entire_space`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from densemtl.config.entire_space import ValidRegionConfig
from densemtl.losses.value_validity import INSIDE, OUTSIDE
from densemtl.ops.gated_classes import compute_log_odds, find_classes, match_host_logits
from densemtl.ops.valid_mask import compute_valid_mask
from densemtl.types import IGNORE_INDEX


@dataclass(frozen=True)
class RegionGate:
    """Gate of the values of a task.

    Attributes:
        task: name of the task.
        host: name of the task that has the classes on which values exist; None for none.
        classes: ids of these classes.
        options: the option `entire_space` of the task.
    """

    task: str
    host: str | None
    classes: frozenset[int]
    options: ValidRegionConfig

    def apply(self, logits: Tensor, host_logits: Tensor | None) -> Tensor:
        """Compute the logits of the task with those of the gate.

        Args:
            logits: outputs of the head of the task: values and the logit of a gate of its own,
                shape (B, C + 1, H, W).
            host_logits: logits of the other task, shape (B, K, h, w); a gate with a logit of its
                own does not need them.

        Returns:
            Values and the logit of their validity, shape (B, C + 1, H, W).
        """
        if self.options.gate == "separate":
            return logits
        assert host_logits is not None
        host = match_host_logits(host_logits, logits, detach=self.options.detach)
        gate = compute_log_odds(host, self.classes)
        return torch.cat([logits[:, :-1].to(gate.dtype), gate], dim=1)

    def complete_target(self, target: Tensor, host_target: Tensor | None) -> Tensor:
        """Mark the ignored pixels of which it is known whether a value exists.

        Args:
            target: values of the task, shape (B, C, H, W); NaN marks ignored pixels.
            host_target: class ids of the other task, shape (B, H, W); None if there is none.

        Returns:
            Values, where ignored pixels are `INSIDE` or `OUTSIDE` the classes of the other task,
            or NaN if it is ignored as well. Without another task, ignored pixels of images with
            values are `OUTSIDE`.
        """
        valid = compute_valid_mask(target)
        if host_target is None:
            known = valid.flatten(1).any(dim=1).view(-1, 1, 1).expand_as(valid)
            inside = torch.zeros_like(valid)
        else:
            known = host_target != IGNORE_INDEX
            inside = find_classes(host_target, self.classes)
        completed = target.masked_fill(~valid.unsqueeze(1), torch.nan)
        completed = completed.masked_fill((known & ~valid & ~inside).unsqueeze(1), OUTSIDE)
        return completed.masked_fill((known & ~valid & inside).unsqueeze(1), INSIDE)
