"""Base class of tasks with values that may exist only in a part of the image."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from densemtl.config.entire_space import ValidRegionConfig
from densemtl.errors import ConfigError
from densemtl.losses.value_validity import ValidRegionLoss, find_known_validity
from densemtl.tasks.loss_task import LossTask
from densemtl.types import ProtocolName

if TYPE_CHECKING:  # torchmetrics is slow to import, and predictions need no metrics
    from densemtl.metrics.base import TaskMetric


class ValidRegionTask(LossTask):
    """Base class of tasks with values, which may predict where their values exist.

    With the option `entire_space`, the last channel of the logits is the logit of the validity, the
    probability that a value exists. Constructors call `set_entire_space` after `set_losses`.

    Attributes:
        entire_space: the option `entire_space`; None if values exist everywhere.
    """

    entire_space: ValidRegionConfig | None = None

    @property
    @abstractmethod
    def value_channels(self) -> int:
        """Number of values per pixel."""

    @property
    def channels(self) -> int:
        """Number of logit channels: the values, and the logit of their validity if predicted."""
        return self.value_channels + self.has_validity

    @property
    def has_validity(self) -> bool:
        """Whether the task predicts where its values exist."""
        return self.entire_space is not None

    def set_entire_space(self, options: ValidRegionConfig | None) -> None:
        """Set the option `entire_space`.

        Args:
            options: the option; None for tasks without a validity.

        Raises:
            ConfigError: if `of`, `classes` and `gate` do not fit together.
        """
        if options is None:
            return
        path = f"tasks.{self.name}.entire_space"
        if options.of is None and (options.classes or options.gate == "host"):
            raise ConfigError(f"{path}.of: is missing; name another task, or set gate to separate")
        if options.of is not None and not options.classes:
            raise ConfigError(f"{path}.classes: is missing; list classes of {options.of!r}")
        self.entire_space = options
        self.losses = ValidRegionLoss(self.losses)

    def select_values(self, logits: Tensor) -> Tensor:
        """Select the channels of the values.

        Args:
            logits: logits of shape (B, channels, H, W).

        Returns:
            Shape (B, value_channels, H, W).
        """
        return logits[:, : self.value_channels] if self.has_validity else logits

    def replace_values(self, values: Tensor, logits: Tensor) -> Tensor:
        """Replace the channels of the values.

        Args:
            values: shape (B, value_channels, H, W).
            logits: logits of shape (B, channels, H, W).

        Returns:
            Logits of the same shape, whose last channel is unchanged if it is the validity.
        """
        if not self.has_validity:
            return values
        return torch.cat([values, logits[:, self.value_channels :]], dim=1)

    def mask_invalid(self, prediction: Tensor, logits: Tensor) -> Tensor:
        """Replace values that probably do not exist by NaN.

        Args:
            prediction: decoded values, shape (B, value_channels, H, W).
            logits: logits, of which the last channel is used, shape (B, any, H, W).

        Returns:
            The values; NaN where the probability of the validity is below 0.5.
        """
        if not self.has_validity:
            return prediction
        return prediction.masked_fill(logits[:, -1:] < 0, torch.nan)

    def compute_label_mask(self, target: Tensor) -> Tensor:
        """Return a mask of the pixels with values, or with a known validity if it is predicted.

        Args:
            target: targets as in `Batch.targets`.

        Returns:
            Mask of shape (B, H, W), bool.
        """
        valid = self.compute_valid_mask(target)
        return find_known_validity(target, valid) if self.has_validity else valid

    def metric_arguments(self, protocol: ProtocolName) -> dict[str, Any]:
        """Return whether the task predicts a validity for constructors of metrics.

        Args:
            protocol: name of the protocol.

        Returns:
            {"has_values": whether it does}.
        """
        return {"has_values": self.has_validity}

    def metrics(self, protocol: ProtocolName) -> list[TaskMetric]:
        """Create the metrics of every validation, with those of the validity if it is predicted.

        Args:
            protocol: name of the protocol.

        Returns:
            New metrics.
        """
        from densemtl.metrics.validity import Validity

        return [*super().metrics(protocol), *([Validity()] if self.has_validity else [])]
