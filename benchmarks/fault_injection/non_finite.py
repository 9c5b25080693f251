"""NaN and infinity in losses, gradients and weights at some step of a training."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from shutil import rmtree
from typing import Any

import torch
from result_table import Row
from training_runs import OVERRIDES, TrainTool, is_one_line_error

from densemtl.engine.checkpoint import read_checkpoint

VALUES = (math.nan, math.inf)
TASKS = ("semseg", "depth")
NUM_TRIALS = 6
STOPPED = "one line that names step and task, then goes on exactly"
SKIPPED = "the step is skipped, weights stay finite"


def iter_rows(tool: TrainTool, rng: random.Random) -> Iterator[Row]:
    """Each kind, where training is to stop, and where it is to skip."""
    for name, broken in (
        ("a loss", _inject_loss),
        ("a gradient", _inject_gradient),
        ("a weight", _inject_weight),
    ):
        row = Row(f"NaN or infinity in {name}, `non_finite: stop`", acceptable=(STOPPED,))
        for _ in range(NUM_TRIALS):
            step, task = rng.randint(1, 12), rng.choice(TASKS)
            row.add(*_try_stop(tool, partial(broken, step, task, rng.choice(VALUES)), step, task))
        yield row
    for name, broken in (("a loss", _inject_loss), ("a gradient", _inject_gradient)):
        row = Row(f"NaN or infinity in {name}, `non_finite: skip`", acceptable=(SKIPPED,))
        for _ in range(NUM_TRIALS // 2):
            step, task = rng.randint(1, 12), rng.choice(TASKS)
            row.add(*_try_skip(tool, partial(broken, step, task, rng.choice(VALUES)), step))
        yield row


def _try_stop(tool: TrainTool, inject: Callable[[], None], step: int, task: str) -> tuple[str, str]:
    folder = tool.scratch / "broken"
    rmtree(folder, ignore_errors=True)
    code, said = tool.run(folder, inject)
    told = is_one_line_error(code, said, f"step {step}", task)
    exact = tool.run(folder)[0] == 0 and tool.is_equal_to_reference(folder)
    return (STOPPED if told and exact else f"code {code}, told {told}, exact {exact}"), said


def _try_skip(tool: TrainTool, inject: Callable[[], None], step: int) -> tuple[str, str]:
    folder = tool.scratch / "broken"
    rmtree(folder, ignore_errors=True)
    code, said = tool.run(folder, inject, overrides=(*OVERRIDES, "train.on_non_finite=skip"))
    last = read_checkpoint(folder)
    finite = last is not None and all(each.isfinite().all() for each in last[0].tensors.values())
    told = f"step {step} skipped" in said
    good = code == 0 and finite and told
    return (SKIPPED if good else f"code {code}, finite {finite}, told {told}"), said


def _patch_step(step_number: int, action: Callable[[Any], None]) -> None:
    """In this process, act on the train step before its n-th run."""
    from densemtl.engine.train_step import TrainStep

    run, count = TrainStep.run, iter(range(1, 10**6))

    def watched(self: Any, batches: Sequence[Any]) -> Any:
        if next(count) == step_number:
            action(self)
        return run(self, batches)

    TrainStep.run = watched  # type: ignore[method-assign]


def _inject_loss(step_number: int, task: str, value: float) -> None:
    def act(train_step: Any) -> None:
        from densemtl.engine import train_step as module

        objective = module.compute_task_losses

        def broken(*given: Any) -> Any:
            module.compute_task_losses = objective
            losses = objective(*given)
            return type(losses)(
                {**losses.tasks, task: losses.tasks[task] * value}, losses.aux_losses
            )

        module.compute_task_losses = broken  # type: ignore[assignment]

    _patch_step(step_number, act)


def _inject_gradient(step_number: int, task: str, value: float) -> None:
    def act(train_step: Any) -> None:
        weight = train_step.model.parameter_groups()[task][0]
        left = [value]  # once, as later steps are to be whole
        weight.register_hook(lambda gradient: gradient * left.pop() if left else gradient)

    _patch_step(step_number, act)


def _inject_weight(step_number: int, task: str, value: float) -> None:
    def act(train_step: Any) -> None:
        with torch.no_grad():
            train_step.model.parameter_groups()[task][0].view(-1)[0] = value

    _patch_step(step_number, act)
