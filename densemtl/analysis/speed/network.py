"""Speed of a model's training step, evaluation and inference, measured on random batches."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densemtl.analysis.speed.timing import (
    Measurement,
    PeakMemory,
    Workload,
    compute_median_ratio,
    compute_medians,
    make_clock,
    measure_peak_flops,
    time_interleaved,
)
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.config.experiment import ExperimentConfig
from densemtl.engine.loss_monitor import LossMonitor
from densemtl.engine.optimizer import make_optimizer
from densemtl.engine.sequential_heads import check_sequential_heads
from densemtl.engine.train_step import TrainStep
from densemtl.evaluation.evaluate import evaluate
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

BYTES_PER_GIB = 2**30


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


def measure_step(benchmark_target: BenchmarkTarget, repeats: int) -> list[Measurement]:
    """Compare a training step with plain training loops and with the peak FLOP/s of the machine.

    Args:
        benchmark_target: the model to measure.
        repeats: number of repetitions; medians are reported.

    Returns:
        Seconds per step, images per second, ratio to a plain loop of the same precision and layout,
        ratio to a plain contiguous float32 loop, share of the matmul peak, the matmul peak, and the
        peak memory of a step.
    """
    precision = benchmark_target.precision
    device = precision.device
    step = make_framework_step(benchmark_target)
    step()
    peak = PeakMemory(device)
    with peak.measure():
        step()
    # The plain loops have their own copies of the model, so memory is measured before.
    contiguous = replace(precision, autocast_dtype=None, channels_last=False)
    works = {
        "bare": make_reference_step(benchmark_target, precision),
        "contiguous": make_reference_step(benchmark_target, contiguous),
        "step": step,
    }
    times = time_interleaved(works, repeats, make_clock(device))
    seconds = median(times["step"])
    peak_flops = measure_peak_flops(device, precision.autocast_dtype or torch.float32, repeats)
    flops = benchmark_target.count_step_flop() / seconds
    return [
        Measurement("step", "training step", seconds, "s"),
        Measurement("step", "images", len(benchmark_target.batch) / seconds, "images/s"),
        Measurement("step", "over a bare loop", compute_median_ratio(times, "step", "bare"), "x"),
        Measurement(
            "step",
            "over a contiguous fp32 loop",
            compute_median_ratio(times, "step", "contiguous"),
            "x",
        ),
        Measurement("step", "of the matmul peak", 100 * flops / peak_flops, "%"),
        Measurement("step", "matmul peak", peak_flops / 1e9, "GFLOP/s"),
        Measurement("step", "peak memory", peak.bytes / BYTES_PER_GIB, "GiB"),
    ]


def make_framework_step(benchmark_target: BenchmarkTarget) -> Workload:
    """Return a function that trains on the batch once and logs the losses, as the engine does.

    Args:
        benchmark_target: the model to train, which is copied.

    Returns:
        A function without parameters.
    """
    train_step, monitor = benchmark_target.make_train_step(), LossMonitor()

    def step() -> None:
        monitor.update(0, train_step.run([benchmark_target.batch]))

    return step


def make_reference_step(benchmark_target: BenchmarkTarget, precision: ExecutionConfig) -> Workload:
    """Return a step of a plain hand-written training loop with equal losses and optimizer.

    Args:
        benchmark_target: the model to train, which is copied.
        precision: device, autocast type and memory layout of the loop.

    Returns:
        A function without parameters.
    """
    train_step = benchmark_target.make_train_step()
    model, optimizer = train_step.model, train_step.optimizer
    precision.to_device(model)
    weights = [
        task.default_loss_weight if len(benchmark_target.learned_tasks) > 1 else 1.0
        for task in benchmark_target.learned_tasks
    ]
    targets = benchmark_target.batch.targets
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        outputs = precision.forward(model, benchmark_target.batch.image)
        total = sum(
            outputs.aux_losses.values(), start=benchmark_target.batch.image.new_zeros(()).float()
        )
        for task, weight in zip(benchmark_target.learned_tasks, weights, strict=True):
            for logits in (outputs.logits, *outputs.aux_logits):
                if task.name in logits:
                    target = targets[task.name]
                    full = torch.nn.functional.interpolate(
                        logits[task.name], target.shape[-2:], mode="bilinear"
                    )
                    total = total + weight * task.compute_loss(full, target)
        total.backward()
        optimizer.step()

    return step


def measure_evaluation(benchmark_target: BenchmarkTarget, repeats: int) -> list[Measurement]:
    """Measure what cropping, resizing, decoding and metrics add to a forward pass.

    Args:
        benchmark_target: the model to measure, which is copied.
        repeats: number of repetitions; medians are reported.

    Returns:
        Milliseconds per image of the forward pass, and of everything else in an evaluation.
    """
    model, precision = deepcopy(benchmark_target.model).eval(), benchmark_target.precision
    batch = make_random_batch(
        benchmark_target.tasks, benchmark_target.experiment.input.size, len(benchmark_target.batch)
    )

    def forward() -> None:
        with torch.inference_mode():
            precision.forward(model, batch.to(precision.device).image)

    def scored() -> None:
        evaluate(
            model, [batch], benchmark_target.tasks, benchmark_target.experiment.protocol, precision
        )

    works = {"forward": forward, "scored": scored}
    medians = compute_medians(time_interleaved(works, repeats, make_clock(precision.device)))
    scale = 1000 / len(batch)
    return [
        Measurement("evaluation", "forward pass", scale * medians["forward"], "ms/image"),
        Measurement(
            "evaluation", "scores", scale * (medians["scored"] - medians["forward"]), "ms/image"
        ),
    ]


def measure_inference(benchmark_target: BenchmarkTarget, repeats: int) -> list[Measurement]:
    """Measure inference of one image, and compare it with float32 in the contiguous layout.

    Args:
        benchmark_target: the model to measure, which is copied.
        repeats: number of repetitions; medians are reported.

    Returns:
        Milliseconds per image, ratio to plain float32, and peak memory.
    """
    precision, image = benchmark_target.precision, benchmark_target.batch.image[:1]
    plain = ExecutionConfig(precision.device, None, channels_last=False)
    models = {
        "as configured": (precision, deepcopy(benchmark_target.model).eval()),
        "plain": (plain, plain.to_device(deepcopy(benchmark_target.model)).eval()),
    }

    def work(name: str) -> Workload:
        @torch.inference_mode()
        def run() -> object:
            settings, model = models[name]
            return settings.forward(model, image)

        return run

    works = {name: work(name) for name in models}
    times = time_interleaved(works, repeats, make_clock(precision.device))
    peak = PeakMemory(precision.device)
    with peak.measure():
        works["as configured"]()
    return [
        Measurement("inference", "one image", 1000 * median(times["as configured"]), "ms"),
        Measurement(
            "inference",
            "faster than plain",
            compute_median_ratio(times, "plain", "as configured"),
            "x",
        ),
        Measurement("inference", "peak memory", peak.bytes / BYTES_PER_GIB, "GiB"),
    ]
