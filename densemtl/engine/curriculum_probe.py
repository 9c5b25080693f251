"""Probe that chooses the next tasks of a curriculum by a short training of each candidate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from densemtl.balancing.fixed import Fixed
from densemtl.config.curriculum import CurriculumConfig, PhaseConfig
from densemtl.engine.curriculum import Curriculum
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.train_step import TrainStep
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runtime.rng_state import get_rng_state, set_rng_state
from densemtl.types import SHARED, Batch

Batches = Callable[[], Iterator[Sequence[Batch]]]
"""Function that starts the batches of an epoch again, those of one step after the other."""


def choose_tasks(
    run: TrainingRun,
    config: CurriculumConfig,
    candidates: Sequence[str],
    count: int,
    batches: Batches,
) -> list[str]:
    """Choose the tasks whose losses decrease most, relative to their start, with little change.

    Each candidate is trained alone from the current weights, on the same batches. Its score is
    `loss at the end / loss at the start + probe_distance * |change| / |weights|` of the shared
    parameters, where the losses are means over the first and the last tenth of the steps.
    Afterwards, the run is as before.

    Args:
        run: the run.
        config: the section `curriculum` of the configuration.
        candidates: names of the tasks to compare.
        count: number of tasks to choose.
        batches: batches to train on.

    Returns:
        The tasks with the smallest scores, that with the smallest one first.
    """
    scores = {}
    for task in candidates:
        with _restored(run):
            scores[task] = _measure(run, config, task, batches)
    return sorted(scores, key=scores.__getitem__)[:count]


def _measure(run: TrainingRun, config: CurriculumConfig, task: str, batches: Batches) -> float:
    """Train one task and return its score."""
    step = _make_step(run, task)
    shared = _list_shared(step)
    before = [weight.detach().clone() for weight in shared]
    losses: list[Tensor] = []
    while len(losses) < config.probe_steps:
        for batch in batches():
            run.schedule.set_lr(run.state.progress.step + len(losses))
            losses.append(step.run(batch)[task])
            if len(losses) == config.probe_steps:
                break
    count = max(1, len(losses) // 10)
    values = torch.stack(losses)
    ratio = _mean_labeled(values[-count:]) / _mean_labeled(values[:count])
    moved = [weight.detach() - start for weight, start in zip(shared, before, strict=True)]
    change = _norm(moved) / _norm(before) if before else torch.zeros(())
    score = float(ratio) + config.probe_distance * float(change)
    return math.inf if math.isnan(score) else score


def _make_step(run: TrainingRun, task: str) -> TrainStep:
    """Return the training step of the run with a single task, without balancing and priors."""
    step = run.train_step
    assert isinstance(step.model, MultiTaskModel)
    only = CurriculumConfig(phases=(PhaseConfig(until=1, tasks=(task,)),))
    curriculum = Curriculum(only, step.model, [each.name for each in step.tasks], 1)
    curriculum.begin_phase(0, lambda tasks, _: tasks)
    balancer = Fixed(step.tasks).to(step.precision.device)
    return replace(
        step, balancer=balancer, relationship=None, curriculum=curriculum, distillation=None
    )


def _list_shared(step: TrainStep) -> list[torch.nn.Parameter]:
    assert isinstance(step.model, MultiTaskModel)
    shared = step.model.parameter_groups().get(SHARED, ())
    return [weight for weight in shared if weight.requires_grad]


def _mean_labeled(losses: Tensor) -> Tensor:
    """Return the mean of losses, without the zeros of steps that had no label."""
    mean: Tensor = losses.sum() / (losses != 0).sum()
    return mean


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    norm: Tensor = torch.stack([each.norm() for each in tensors]).norm()
    return norm


@contextmanager
def _restored(run: TrainingRun) -> Iterator[None]:
    """Restore weights, optimizer, loss scale and random numbers at the end."""
    state = run.state
    model = {name: value.clone() for name, value in state.model.state_dict().items()}
    optimizer = deepcopy(state.optimizer.state_dict())
    scaler, rng = deepcopy(state.scaler.state_dict()), get_rng_state()
    try:
        yield
    finally:
        state.model.load_state_dict(model)
        state.optimizer.load_state_dict(optimizer)
        state.scaler.load_state_dict(scaler)
        set_rng_state(rng)
        state.optimizer.zero_grad(set_to_none=True)
