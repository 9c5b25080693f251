"""Training step, evaluation and inference of an experiment's network, on batches of noise."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densemtl.factory import build_auxiliary_tasks, build_balancer, build_model, build_tasks
from densemtl.config.experiment import Experiment
from densemtl.data.batching import to_tensor
from densemtl.evaluation.evaluate import evaluate
from densemtl.engine.loss_monitor import LossMonitor
from densemtl.engine.optimizer import make_optimizer
from densemtl.runtime.execution import Precision
from densemtl.engine.train_step import TrainStep
from densemtl.models.complexity import count_flop
from densemtl.models.multi_task_model import DenseModel
from densemtl.models.activation_checkpointing import recompute_blocks
from densemtl.analysis.speed.timing import (
    Measure,
    Peak,
    Work,
    interleaved,
    make_clock,
    medians,
    peak_flops,
    ratio,
)
from densemtl.tasks.base import Task
from densemtl.types import Batch, Frame, Size

PASSES = 3
"""A backward pass is two forward passes' work."""

GIBI = 2**30


@dataclass(frozen=True)
class Subject:
    """A network and what it is measured with.

    Attributes:
        experiment: what is measured.
        tasks: those that are scored.
        learnt: those and the auxiliary ones.
        model: on the device.
        precision: where and how it runs.
        batch: of the training batch size.
    """

    experiment: Experiment
    tasks: list[Task]
    learnt: list[Task]
    model: DenseModel
    precision: Precision
    batch: Batch

    def make_train_step(self) -> TrainStep:
        """A step as training takes it, on a model of its own."""
        model, settings = deepcopy(self.model), self.experiment.train
        if settings.checkpoint_activations:
            recompute_blocks(model)
        if settings.compile:
            model.compile()
        balancer = build_balancer(self.experiment, self.learnt).to(self.precision.device)
        optimizer = make_optimizer(self.experiment.optim, model.parameter_groups(), balancer)
        scaler = torch.amp.GradScaler(self.precision.device.type, enabled=settings.amp == "fp16")
        return TrainStep(model, self.learnt, balancer, optimizer, self.precision, settings, scaler)

    def flop(self) -> int:
        """Of one training step."""
        model = deepcopy(self.model).to("meta")
        forward = sum(count_flop(model, self.experiment.input.size).values())
        return PASSES * len(self.batch) * forward


def make_subject(experiment: Experiment, precision: Precision) -> Subject:
    """From scratch: weights do not change speed."""
    tasks = build_tasks(experiment)
    learnt = [*tasks, *build_auxiliary_tasks(experiment)]
    model = build_model(experiment, tasks, pretrained=False)
    precision.place(model)
    batch = noise(learnt, experiment.input.size, experiment.loader.batch_size)
    return Subject(experiment, tasks, learnt, model, precision, batch.to(precision.device))


def noise(tasks: Sequence[Task], size: Size, count: int) -> Batch:
    """Random images and labels of the right kinds."""
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (count, *size, 3)).astype(np.uint8))
    targets = {}
    for task in tasks:
        void = task.void(size)
        shape = (count, *void.shape)
        drawn: NDArray[Any]
        if void.dtype == np.uint8:
            drawn = rng.integers(0, max(task.channels, 2), shape)
        else:
            drawn = rng.uniform(0.1, 1, shape)
        targets[task.name] = to_tensor(drawn.astype(void.dtype))
    frames = [Frame(size, (0, 0, *size))] * count
    return Batch(image.permute(0, 3, 1, 2), targets, [str(i) for i in range(count)], frames)


def measure_step(subject: Subject, repeats: int) -> list[Measure]:
    """A step against a bare loop of the same model, the machine's peak, and its memory."""
    device = subject.precision.device
    step = whole_step(subject)
    step()
    peak = Peak(device)
    with peak.watching():
        step()
    works = {"bare": bare_step(subject), "step": step}  # which doubles weights and their gradients
    times = interleaved(works, repeats, make_clock(device))
    seconds = median(times["step"])
    most = peak_flops(device, subject.precision.autocast or torch.float32, repeats)
    done = subject.flop() / seconds
    return [
        Measure("step", "training step", seconds, "s"),
        Measure("step", "images", len(subject.batch) / seconds, "images/s"),
        Measure("step", "over a bare loop", ratio(times, "step", "bare"), "x"),
        Measure("step", "of the matmul peak", 100 * done / most, "%"),
        Measure("step", "matmul peak", most / 1e9, "GFLOP/s"),
        Measure("step", "peak memory", peak.bytes / GIBI, "GiB"),
    ]


def whole_step(subject: Subject) -> Work:
    """What the training loop does for a batch that is there, its log of losses included."""
    train_step, monitor = subject.make_train_step(), LossMonitor()

    def step() -> None:
        monitor.update(0, train_step.run([subject.batch]))

    return step


def bare_step(subject: Subject) -> Work:
    """The loop that one would write by hand for the same model, losses, weights and optimiser."""
    train_step = subject.make_train_step()
    model, optimizer = train_step.model, train_step.optimizer
    weights = [task.weight if len(subject.learnt) > 1 else 1.0 for task in subject.learnt]
    targets = subject.batch.targets
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        outputs = subject.precision.run(model, subject.batch.image)
        total = sum(outputs.terms.values(), start=subject.batch.image.new_zeros(()).float())
        for task, weight in zip(subject.learnt, weights, strict=True):
            for logits in (outputs.final, *outputs.aux):
                if task.name in logits:
                    target = targets[task.name]
                    full = torch.nn.functional.interpolate(
                        logits[task.name], target.shape[-2:], mode="bilinear"
                    )
                    total = total + weight * task.loss(full, target)
        total.backward()
        optimizer.step()

    return step


def measure_evaluation(subject: Subject, repeats: int) -> list[Measure]:
    """What restoring, decoding and scoring add to the forward passes of a batch."""
    model, precision = deepcopy(subject.model).eval(), subject.precision
    batch = noise(subject.tasks, subject.experiment.input.size, len(subject.batch))

    def forward() -> None:
        with torch.inference_mode():
            precision.run(model, batch.to(precision.device).image)

    def scored() -> None:
        evaluate(model, [batch], subject.tasks, subject.experiment.protocol, precision)

    works = {"forward": forward, "scored": scored}
    found = medians(interleaved(works, repeats, make_clock(precision.device)))
    each = 1000 / len(batch)
    return [
        Measure("evaluation", "forward pass", each * found["forward"], "ms/image"),
        Measure("evaluation", "scores", each * (found["scored"] - found["forward"]), "ms/image"),
    ]


def measure_inference(subject: Subject, repeats: int) -> list[Measure]:
    """One image alone, against plain float32 in torch's default layout, and its memory."""
    precision, image = subject.precision, subject.batch.image[:1]
    plain = Precision(precision.device, None, channels_last=False)
    models = {
        "as configured": (precision, deepcopy(subject.model).eval()),
        "plain": (plain, plain.place(deepcopy(subject.model)).eval()),
    }

    def work(name: str) -> Work:
        @torch.inference_mode()
        def run() -> object:
            settings, model = models[name]
            return settings.run(model, image)

        return run

    works = {name: work(name) for name in models}
    times = interleaved(works, repeats, make_clock(precision.device))
    peak = Peak(precision.device)
    with peak.watching():
        works["as configured"]()
    return [
        Measure("inference", "one image", 1000 * median(times["as configured"]), "ms"),
        Measure("inference", "faster than plain", ratio(times, "plain", "as configured"), "x"),
        Measure("inference", "peak memory", peak.bytes / GIBI, "GiB"),
    ]
