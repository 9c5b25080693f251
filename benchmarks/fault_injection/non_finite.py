"""NaN and infinity in losses, gradients and weights at some step of a training."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from shutil import rmtree
from typing import Any

import torch
from rows import Row
from runs import OVERRIDES, Tool, is_one_line

from densemtl.engine.checkpoint import read_last

VALUES = (math.nan, math.inf)
TASKS = ("semseg", "depth")
EACH = 6
STOP = "one line that names step and task, then goes on exactly"
SKIP = "the step is skipped, weights stay finite"


def rows(tool: Tool, rng: random.Random) -> Iterator[Row]:
    """Each kind, where training is to stop, and where it is to skip."""
    for name, broken in (("a loss", _loss), ("a gradient", _gradient), ("a weight", _weight)):
        row = Row(f"NaN or infinity in {name}, `non_finite: stop`", good=(STOP,))
        for _ in range(EACH):
            step, task = rng.randint(1, 12), rng.choice(TASKS)
            row.add(*_stop(tool, partial(broken, step, task, rng.choice(VALUES)), step, task))
        yield row
    for name, broken in (("a loss", _loss), ("a gradient", _gradient)):
        row = Row(f"NaN or infinity in {name}, `non_finite: skip`", good=(SKIP,))
        for _ in range(EACH // 2):
            step, task = rng.randint(1, 12), rng.choice(TASKS)
            row.add(*_skip(tool, partial(broken, step, task, rng.choice(VALUES)), step))
        yield row


def _stop(tool: Tool, broken: Callable[[], None], step: int, task: str) -> tuple[str, str]:
    folder = tool.scratch / "broken"
    rmtree(folder, ignore_errors=True)
    code, said = tool.run(folder, broken)
    told = is_one_line(code, said, f"step {step}", task)
    exact = tool.run(folder)[0] == 0 and tool.equals_whole(folder)
    return (STOP if told and exact else f"code {code}, told {told}, exact {exact}"), said


def _skip(tool: Tool, broken: Callable[[], None], step: int) -> tuple[str, str]:
    folder = tool.scratch / "broken"
    rmtree(folder, ignore_errors=True)
    code, said = tool.run(folder, broken, overrides=(*OVERRIDES, "train.non_finite=skip"))
    last = read_last(folder)
    finite = last is not None and all(each.isfinite().all() for each in last[0].tensors.values())
    told = f"step {step} skipped" in said
    good = code == 0 and finite and told
    return (SKIP if good else f"code {code}, finite {finite}, told {told}"), said


def _before_step(at: int, act: Callable[[Any], None]) -> None:
    """In this process, act on the train step before its n-th run."""
    from densemtl.engine.train_step import TrainStep

    run, count = TrainStep.run, iter(range(1, 10**6))

    def watched(self: Any, batches: Sequence[Any]) -> Any:
        if next(count) == at:
            act(self)
        return run(self, batches)

    TrainStep.run = watched  # type: ignore[method-assign]


def _loss(at: int, task: str, value: float) -> None:
    def act(train_step: Any) -> None:
        from densemtl.engine import train_step as module

        objective = module.objective

        def broken(*given: Any) -> Any:
            module.objective = objective
            losses = objective(*given)
            return type(losses)({**losses.tasks, task: losses.tasks[task] * value}, losses.terms)

        module.objective = broken  # type: ignore[assignment]

    _before_step(at, act)


def _gradient(at: int, task: str, value: float) -> None:
    def act(train_step: Any) -> None:
        weight = train_step.model.parameter_groups()[task][0]
        left = [value]  # once, as later steps are to be whole
        weight.register_hook(lambda gradient: gradient * left.pop() if left else gradient)

    _before_step(at, act)


def _weight(at: int, task: str, value: float) -> None:
    def act(train_step: Any) -> None:
        with torch.no_grad():
            train_step.model.parameter_groups()[task][0].view(-1)[0] = value

    _before_step(at, act)
