"""Speed of the training step, evaluation and inference of a model."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.analysis.speed.target import BenchmarkTarget, make_random_batch
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
from densemtl.engine.loss_monitor import LossMonitor
from densemtl.evaluation.evaluate import evaluate
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.tasks.value_classes import assign_value_classes
from densemtl.types import IGNORE_INDEX, Predictions

BYTES_PER_GIB = 2**30


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

    Only the loss of affinities of pixels, which full-size predictions do not have, is left out.

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
    batch = benchmark_target.batch
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        outputs = precision.forward(model, batch.image)
        total = sum(outputs.aux_losses.values(), start=batch.image.new_zeros(()).float())
        for task, weight in zip(benchmark_target.learned_tasks, weights, strict=True):
            total = total + weight * _compute_plain_loss(task, outputs, batch.targets[task.name])
        total.backward()
        optimizer.step()

    return step


def _compute_plain_loss(task: Task, outputs: Predictions, target: Tensor) -> Tensor:
    """Return the loss of a task at the size of its targets."""
    size = target.shape[-2:]
    total = target.new_zeros((), dtype=torch.float32)
    for logits in (outputs.logits, *outputs.aux_logits):
        if task.name in logits:
            full = F.interpolate(logits[task.name], size, mode="bilinear")
            total = total + task.compute_loss(full, target)
    classes = outputs.value_class_logits.get(task.name)
    if classes is not None:
        ids = assign_value_classes(target, classes.centers, classes.is_logarithmic)
        ids = ids.masked_fill(~task.compute_valid_mask(target), IGNORE_INDEX)
        full = F.interpolate(classes.logits.float(), size, mode="bilinear")
        total = total + F.cross_entropy(full, ids, ignore_index=IGNORE_INDEX)
    return total


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
