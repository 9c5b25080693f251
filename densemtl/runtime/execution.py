"""Device, autocast type and memory layout of a model."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from densemtl.config.sections import TrainConfig
from densemtl.distributed.devices import get_local_device
from densemtl.distributed.sharding import is_sharded
from densemtl.runtime.hardware import resolve_amp, warn_if_emulated
from densemtl.types import ModelInput

Output = TypeVar("Output")

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""{value of `train.amp`: autocast type}; other values disable autocast."""


@dataclass(frozen=True)
class ExecutionConfig:
    """Device, autocast type and memory layout with which a model runs.

    Attributes:
        device: device of the model and the images.
        autocast_dtype: type of autocast operations; None disables autocast.
        channels_last: whether images and convolution weights are channels-last in memory.

    Example:
        >>> execution = ExecutionConfig(torch.device("cpu"), torch.bfloat16)
        >>> model = execution.to_device(nn.Conv2d(3, 2, 1))
        >>> execution.forward(model, torch.zeros(1, 3, 4, 4)).dtype
        torch.bfloat16
    """

    device: torch.device
    autocast_dtype: torch.dtype | None = None
    channels_last: bool = True

    def forward(self, model: Callable[..., Output], image: ModelInput, **options: Any) -> Output:
        """Run a model forward under autocast; its weights keep their type.

        Args:
            model: the model, or another function of images.
            image: images, (B, C, H, W), on the device; or cached features instead.
            options: further keyword arguments of the model.

        Returns:
            The output of the model.
        """
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        image = image.contiguous(memory_format=layout)
        with self.autocast():
            return model(image, **options)

    def autocast(self) -> torch.autocast:
        """Create the context in which a part of a model runs.

        Returns:
            A context manager.
        """
        enabled = self.autocast_dtype is not None
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=enabled)

    def to_device(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, and convert its convolutions to the memory layout.

        Args:
            model: the model. A sharded model is returned unchanged, because it is already on its
                device and its memory layout is fixed.

        Returns:
            The same model.
        """
        if any(is_sharded(parameter) for parameter in model.parameters()):
            return model
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(self.device).to(memory_format=layout)


def make_execution_config(config: TrainConfig, device: str | None) -> ExecutionConfig:
    """Create the execution configuration of this rank.

    `amp: auto` is resolved for the device. `channels_last: auto` gives channels-last; training
    replaces it by the layout that it measures to be faster. A GPU becomes the current one of this
    process, and `tf32` and `deterministic` are set for the process.

    Args:
        config: the section `train` of the configuration.
        device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one. With several
            ranks, "cuda" is the GPU of this rank.

    Returns:
        Device, autocast type and memory layout.

    Raises:
        UserError: if the device is not available.

    Example:
        >>> make_execution_config(TrainConfig(amp="bf16"), "cpu").autocast_dtype
        torch.bfloat16
    """
    resolved = get_local_device(device)
    amp = resolve_amp(config.amp, resolved)
    _set_up_process(resolved, config)
    warn_if_emulated(amp, resolved)
    return ExecutionConfig(resolved, AUTOCAST_DTYPES.get(amp), config.channels_last is not False)


def tune_convolutions(device: torch.device, config: TrainConfig) -> None:
    """Let cuDNN measure its algorithms for each convolution of a training on a GPU.

    This is useful because all batches have the same size, and not done if results must be
    deterministic, since the choice may differ between runs.

    Args:
        device: the device of the training.
        config: the section `train` of the configuration.
    """
    torch.backends.cudnn.benchmark = device.type == "cuda" and not config.deterministic


def _set_up_process(device: torch.device, config: TrainConfig) -> None:
    """Select the GPU, and set what torch has for the whole process only."""
    if device.type == "cuda":
        if device.index is not None:  # streams, events and memory statistics are of the current GPU
            torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = config.tf32
        torch.backends.cudnn.allow_tf32 = config.tf32
    if config.deterministic:
        # cuBLAS reads the variable when it is initialized.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
