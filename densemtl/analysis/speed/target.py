"""Model and random batch whose speed is measured."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.config.experiment import ExperimentConfig
from densemtl.engine.optimizer import make_optimizer
from densemtl.engine.sequential_heads import check_sequential_heads
from densemtl.engine.train_step import TrainStep
from densemtl.factory import build_auxiliary_tasks, build_balancer, build_model, build_tasks
from densemtl.models.activation_checkpointing import enable_grad_checkpointing
from densemtl.models.complexity import count_flops
from densemtl.models.memory_layout import choose_layout
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.ops.layouts import to_tensor
from densemtl.runtime.compilation import compile_model
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.types import Batch, ImagePlacement, Size

FORWARDS_PER_STEP = 3
"""FLOP of a training step over FLOP of a forward pass; a backward pass counts as two forwards."""


@dataclass(frozen=True)
class BenchmarkTarget:
    """Model of an experiment, with a batch to run it on.

    Attributes:
        experiment: configuration of the experiment.
        tasks: tasks that are evaluated.
        learned_tasks: all trained tasks, which include auxiliary tasks.
        model: the model, on the device of `precision`.
        precision: device, autocast type and memory layout.
        batch: random batch of the training batch size, on the same device.
    """

    experiment: ExperimentConfig
    tasks: list[Task]
    learned_tasks: list[Task]
    model: MultiTaskModel
    precision: ExecutionConfig
    batch: Batch

    def with_chosen_layout(self) -> BenchmarkTarget:
        """Resolve `train.channels_last: auto` as a training does, by measuring both layouts."""
        experiment, precision = choose_layout(self.experiment, self.model, self.precision)
        precision.to_device(self.model)
        return replace(self, experiment=experiment, precision=precision)

    def make_train_step(self) -> TrainStep:
        """Build the training step of the experiment on a copy of the model."""
        model, settings = deepcopy(self.model), self.experiment.train
        if settings.grad_checkpointing:
            enable_grad_checkpointing(model)
        balancer = build_balancer(self.experiment, self.learned_tasks).to(self.precision.device)
        if settings.compile:
            compile_model(model, keeps_graph=isinstance(balancer, GradientBalancer))
        check_sequential_heads(settings, model, balancer)
        optimizer = make_optimizer(self.experiment.optim, model.parameter_groups(), balancer, model)
        scaler = torch.amp.GradScaler(self.precision.device.type, enabled=settings.amp == "fp16")
        return TrainStep(
            model, self.learned_tasks, balancer, optimizer, self.precision, settings, scaler
        )

    def count_step_flop(self) -> int:
        """Return the FLOP of one training step, 2 per multiply-add."""
        model = deepcopy(self.model).to("meta")
        forward = sum(count_flops(model, self.experiment.input.size).values())
        return FORWARDS_PER_STEP * len(self.batch) * forward


def make_benchmark_target(
    experiment: ExperimentConfig, precision: ExecutionConfig
) -> BenchmarkTarget:
    """Build the model of an experiment with random weights, which do not affect speed.

    Args:
        experiment: a validated configuration.
        precision: device, autocast type and memory layout.

    Returns:
        The model and a random batch on the device.
    """
    tasks = build_tasks(experiment)
    learned = [*tasks, *build_auxiliary_tasks(experiment)]
    model = build_model(experiment, tasks, pretrained=False)
    precision.to_device(model)
    batch = make_random_batch(learned, experiment.input.size, experiment.loader.batch_size)
    return BenchmarkTarget(experiment, tasks, learned, model, precision, batch.to(precision.device))


def make_random_batch(tasks: Sequence[Task], size: Size, batch_size: int) -> Batch:
    """Make a batch of random images and of random targets in the layout of each task.

    Args:
        tasks: tasks to make targets for.
        size: (height, width) in pixels.
        batch_size: number of images.

    Returns:
        The batch, on the CPU. Every pixel is valid.
    """
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (batch_size, *size, 3)).astype(np.uint8))
    targets = {}
    for task in tasks:
        empty = task.make_empty_label(size)
        shape = (batch_size, *empty.shape)
        values: NDArray[Any]
        if empty.dtype == np.uint8:
            values = rng.integers(0, max(task.channels, 2), shape)
        else:
            values = rng.uniform(0.1, 1, shape)
        targets[task.name] = to_tensor(values.astype(empty.dtype))
    frames = [ImagePlacement(size, (0, 0, *size))] * batch_size
    return Batch(image.permute(0, 3, 1, 2), targets, [str(i) for i in range(batch_size)], frames)
