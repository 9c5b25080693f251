"""Fault injection: NaN and infinity in losses, gradients and weights during training."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from shutil import rmtree
from typing import Any
from unittest import mock

import torch
from result_table import Row
from training_runs import OVERRIDES, TrainTool, is_one_line_error

from densemtl.engine.checkpoint import read_checkpoint

VALUES = (math.nan, math.inf)
TASKS = ("semseg", "depth")
NUM_TRIALS = 6
STOPPED = "one line that names step and task, then resumes exactly"
SKIPPED = "the step is skipped, weights stay finite"


def iter_rows(tool: TrainTool, rng: random.Random) -> Iterator[Row]:
    """Yield one row per kind of value, for training that stops and for training that skips."""
    for name, inject in (
        ("a loss", _inject_loss),
        ("a gradient", _inject_gradient),
        ("a weight", _inject_weight),
    ):
        row = Row(f"NaN or infinity in {name}, `on_non_finite: stop`", acceptable=(STOPPED,))
        for _ in range(NUM_TRIALS):
            step, task = rng.randint(1, 12), rng.choice(TASKS)
            row.add(*_try_stop(tool, partial(inject, step, task, rng.choice(VALUES)), step, task))
        yield row
    for name, inject in (("a loss", _inject_loss), ("a gradient", _inject_gradient)):
        row = Row(f"NaN or infinity in {name}, `on_non_finite: skip`", acceptable=(SKIPPED,))
        for _ in range(NUM_TRIALS // 2):
            step, task = rng.randint(1, 12), rng.choice(TASKS)
            row.add(*_try_skip(tool, partial(inject, step, task, rng.choice(VALUES)), step))
        yield row


def _try_stop(tool: TrainTool, inject: Callable[[], None], step: int, task: str) -> tuple[str, str]:
    folder = tool.scratch / "broken"
    rmtree(folder, ignore_errors=True)
    code, output = tool.run(folder, inject)
    reported = is_one_line_error(code, output, f"step {step}", task)
    exact = tool.run(folder)[0] == 0 and tool.is_equal_to_reference(folder)
    if reported and exact:
        return STOPPED, output
    return f"code {code}, reported {reported}, exact {exact}", output


def _try_skip(tool: TrainTool, inject: Callable[[], None], step: int) -> tuple[str, str]:
    folder = tool.scratch / "broken"
    rmtree(folder, ignore_errors=True)
    code, output = tool.run(folder, inject, overrides=(*OVERRIDES, "train.on_non_finite=skip"))
    last = read_checkpoint(folder)
    finite = last is not None and all(
        tensor.isfinite().all() for tensor in last[0].tensors.values()
    )
    reported = f"step {step} skipped" in output
    if code == 0 and finite and reported:
        return SKIPPED, output
    return f"code {code}, finite {finite}, reported {reported}", output


def _patch_step(step_number: int, action: Callable[[Any], None]) -> None:
    """Call `action` with the train step before its n-th run in this process."""
    from densemtl.engine.train_step import TrainStep

    run, count = TrainStep.run, iter(range(1, 10**6))

    def run_with_action(self: Any, batches: Sequence[Any]) -> Any:
        if next(count) == step_number:
            action(self)
        return run(self, batches)

    mock.patch.object(TrainStep, "run", run_with_action).start()


def _inject_loss(step_number: int, task: str, value: float) -> None:
    def act(train_step: Any) -> None:
        from densemtl.tasks.multi_task_loss import compute_task_losses

        def compute_once(*args: Any) -> Any:
            patch.stop()
            losses = compute_task_losses(*args)
            return type(losses)(
                {**losses.tasks, task: losses.tasks[task] * value}, losses.aux_losses
            )

        patch = mock.patch("densemtl.engine.train_step.compute_task_losses", compute_once)
        patch.start()

    _patch_step(step_number, act)


def _inject_gradient(step_number: int, task: str, value: float) -> None:
    def act(train_step: Any) -> None:
        weight = train_step.model.parameter_groups()[task][0]
        factors = [value]  # used once, so that later steps are correct
        weight.register_hook(lambda gradient: gradient * factors.pop() if factors else gradient)

    _patch_step(step_number, act)


def _inject_weight(step_number: int, task: str, value: float) -> None:
    def act(train_step: Any) -> None:
        with torch.no_grad():
            train_step.model.parameter_groups()[task][0].view(-1)[0] = value

    _patch_step(step_number, act)
