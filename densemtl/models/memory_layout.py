"""Memory layout of images and convolutions, measured before a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from densemtl.config.experiment import ExperimentConfig
from densemtl.distributed.collectives import get_per_rank_batch_size
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runtime.execution import ExecutionConfig
from densemtl.runtime.hardware import choose_channels_last
from densemtl.runtime.progress_bar import print_message

CPU_IMAGES = 4
"""Maximum number of images of a timed step on a CPU, where larger batches only take longer."""


def choose_layout(
    experiment: ExperimentConfig, model: MultiTaskModel, execution: ExecutionConfig
) -> tuple[ExperimentConfig, ExecutionConfig]:
    """Resolve `train.channels_last: auto` by measuring a step in each layout, and print the choice.

    Args:
        experiment: the experiment, with the choice of an earlier start if there is one.
        model: the untrained model; a copy is measured.
        execution: device and autocast type.

    Returns:
        The experiment and the execution configuration with the chosen layout.
    """
    choice = experiment.train.channels_last
    if choice == "auto":
        batch_size = get_per_rank_batch_size(experiment.loader.batch_size)
        if execution.device.type == "cpu":
            batch_size = min(batch_size, CPU_IMAGES)
        shape = (batch_size, model.num_channels, *experiment.input.size)
        image = torch.randint(0, 256, shape, dtype=torch.uint8)
        choice, seconds = choose_channels_last(model, image, _make_forward(execution))
        measured = ", ".join(f"{layout} {value:.3g} s" for layout, value in seconds.items())
        print_message(
            f"train.channels_last: {str(choice).lower()} (per step with a batch of {batch_size}:"
            f" {measured})"
        )
    return experiment.with_train(channels_last=choice), replace(execution, channels_last=choice)


def _make_forward(execution: ExecutionConfig) -> Callable[[nn.Module, Tensor, bool], Tensor]:
    def run_forward(model: nn.Module, image: Tensor, channels_last: bool) -> Tensor:
        layout = replace(execution, channels_last=channels_last)
        predictions = layout.forward(layout.to_device(model), image.to(execution.device))
        means = [output.float().mean() for output in predictions.list_outputs()]
        return torch.stack(means).sum()

    return run_forward
