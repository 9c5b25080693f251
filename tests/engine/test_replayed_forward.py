"""Tests of replays after an optimizer step: same batches and dropout, no side effects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from densemtl.balancing.equal import Equal
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.train_step import TrainStep
from densemtl.factory import build_splits
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.types import Batch
from tests.helpers.experiments import make_tiny_experiment

DROPOUT = "head={name: deeplabv3}"


class RecordingMethod(Equal):
    """Equal loss weights; records the losses before and after the step."""

    needs_post_step_losses = True

    def after_step(self, before: Tensor, after: Tensor) -> None:
        self.losses = [
            dict(zip(self.task_names, values, strict=True)) for values in (before, after)
        ]


def make_run(folder: Path, *overrides: str) -> TrainingRun:
    experiment = make_tiny_experiment(*overrides)
    execution = make_execution_config(experiment.train, "cpu")
    run = build_training_run(experiment, build_splits(experiment), folder, execution)
    run.schedule.set_lr(1)
    return run


def record_losses(train_step: TrainStep) -> RecordingMethod:
    train_step.balancer = RecordingMethod(train_step.tasks)
    return train_step.balancer


def load_batches(run: TrainingRun, count: int) -> list[Batch]:
    batches = iter(run.train_loader)
    return [next(batches) for _ in range(count)]


def compute_mean_losses(train_step: TrainStep, batches: list[Batch]) -> dict[str, float]:
    """Return the mean losses in training mode, without gradients."""
    batch_losses = []
    for batch in batches:
        with torch.no_grad():
            predictions = train_step.precision.forward(train_step.model, batch.image)
            losses = compute_task_losses(train_step.tasks, predictions, batch.targets)
            batch_losses.append(losses.tasks)
    return {
        task.name: torch.stack([losses[task.name] for losses in batch_losses]).mean().item()
        for task in train_step.tasks
    }


@pytest.mark.parametrize("count", [1, 2])
def test_losses_after_the_step_are_those_of_all_batches(tmp_path: Path, count: int) -> None:
    run = make_run(tmp_path, "optim.lr=0.01")
    batches, method = load_batches(run, count), record_losses(run.train_step)
    expected_before = compute_mean_losses(run.train_step, batches)
    log = run.train_step.run(batches)
    expected_after = compute_mean_losses(run.train_step, batches)
    before, after = method.losses
    for task in ("semseg", "depth"):
        assert before[task] == log[task]
        assert before[task].item() == pytest.approx(expected_before[task], rel=1e-5)
        assert after[task].item() == pytest.approx(expected_after[task], rel=1e-5)
        assert abs(expected_after[task] - expected_before[task]) > 1e-3
        assert not after[task].requires_grad


def test_replay_uses_the_same_dropout_masks(tmp_path: Path) -> None:
    """With a learning rate of nearly 0, losses are equal only if the dropout masks are equal."""
    run = make_run(tmp_path, DROPOUT, "optim.lr=1e-12")
    batches, method = load_batches(run, 2), record_losses(run.train_step)
    run.train_step.run(batches)
    before, after = method.losses
    assert before["depth"].item() == pytest.approx(after["depth"].item(), rel=1e-5)
    first = compute_mean_losses(run.train_step, batches)
    second = compute_mean_losses(run.train_step, batches)
    assert first["depth"] != pytest.approx(second["depth"], rel=1e-4)


@pytest.mark.parametrize("overrides", [(), (DROPOUT, "train.amp=bf16")])
def test_replay_has_no_side_effects(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """Weights, running statistics and random numbers equal those of a run without replays."""
    states = []
    for replays in (True, False):
        run = make_run(tmp_path / str(replays), *overrides)
        method = record_losses(run.train_step)
        method.needs_post_step_losses = replays
        torch.manual_seed(3)
        for batch in load_batches(run, 3):
            run.train_step.run([batch])
        assert hasattr(method, "losses") == replays
        state = {name: value.clone() for name, value in run.train_step.model.state_dict().items()}
        states.append({**state, "random": torch.get_rng_state()})
    assert any("running_mean" in name for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_skipped_step_is_not_replayed(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.on_non_finite=skip")
    method, (batch,) = record_losses(run.train_step), load_batches(run, 1)
    with torch.no_grad():
        next(iter(run.train_step.model.parameters())).fill_(torch.nan)
    run.train_step.run([batch])
    assert not hasattr(method, "losses")


@pytest.mark.parametrize(("name", "forwards"), [("fixed", 2), ("gls", 4), ("famo", 6)])
def test_number_of_forward_passes(tmp_path: Path, name: str, forwards: int) -> None:
    """Only methods that need replays run additional forward passes."""
    run = make_run(tmp_path, f"balancing={{name: {name}}}")
    passes: list[int] = []
    run.train_step.model.decoder.register_forward_hook(lambda *_: passes.append(1))
    run.train_step.run(load_batches(run, 2))
    assert len(passes) == forwards
