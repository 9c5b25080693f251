"""Where and in what number type and memory layout a model runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from densemtl.config.sections import TrainConfig
from densemtl.distributed.collectives import get_local_device
from densemtl.distributed.sharding import is_sharded
from densemtl.errors import UserError

Output = TypeVar("Output")

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""{name in a configuration: type}; any other name stands for none."""


@dataclass(frozen=True)
class ExecutionConfig:
    """Device, autocast type (None for full float32) and whether images are channels-last."""

    device: torch.device
    autocast_dtype: torch.dtype | None = None
    channels_last: bool = True

    def forward(self, model: Callable[..., Output], image: Tensor, **options: Any) -> Output:
        """A forward pass; the model's own dtype is kept, only its operations are cast."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        image = image.contiguous(memory_format=layout)
        enabled = self.autocast_dtype is not None
        with torch.autocast(self.device.type, self.autocast_dtype, enabled=enabled):
            return model(image, **options)

    def to_device(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, with its convolutions in the chosen layout.

        One in shards has its place already, and a layout that cannot be chosen.
        """
        if any(is_sharded(parameter) for parameter in model.parameters()):
            return model
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(self.device).to(memory_format=layout)


def make_execution_config(config: TrainConfig, device: str | None) -> ExecutionConfig:
    """The device asked for, else a GPU where there is one; of several ranks each its own.

    Raises:
        UserError: a device that is not there.
    """
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: no usable GPU here; leave it out or say --device cpu")
    return ExecutionConfig(
        torch.device(get_local_device(name)), AUTOCAST_DTYPES.get(config.amp), config.channels_last
    )
