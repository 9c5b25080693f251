"""The second look sees the updated network on the same batch and dropout, and leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from densemtl.balancing.equal import Equal
from densemtl.engine.train_step import TrainStep
from densemtl.engine.trainer import TrainingRun
from densemtl.factory import build_splits
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.types import Batch
from tests.helpers.experiments import make_tiny_experiment

DROPOUT = "head={name: deeplabv3}"


class Curious(Equal):
    """Equal weights; remembers what it was shown and the weights at that time."""

    needs_post_step_losses = True

    def after_step(self, before: Tensor, after: Tensor) -> None:
        self.seen = [dict(zip(self.task_names, each, strict=True)) for each in (before, after)]


def job(folder: Path, *overrides: str) -> TrainingRun:
    experiment = make_tiny_experiment(*overrides)
    precision = make_execution_config(experiment.train, "cpu")
    made = build_training_run(experiment, build_splits(experiment), folder, precision)
    made.schedule.set_lr(1)
    return made


def curious(train_step: TrainStep) -> Curious:
    train_step.balancer = Curious(train_step.tasks)
    return train_step.balancer


def some_batches(made: TrainingRun, count: int) -> list[Batch]:
    batches = iter(made.train_loader)
    return [next(batches) for _ in range(count)]


def losses_now(train_step: TrainStep, batches: list[Batch]) -> dict[str, float]:
    """Mean losses in training mode, without gradients."""
    found = []
    for batch in batches:
        with torch.no_grad():
            predictions = train_step.precision.forward(train_step.model, batch.image)
            found.append(compute_task_losses(train_step.tasks, predictions, batch.targets).tasks)
    return {
        task.name: torch.stack([losses[task.name] for losses in found]).mean().item()
        for task in train_step.tasks
    }


@pytest.mark.parametrize("count", [1, 2])
def test_it_comes_after_the_update_and_sees_all_batches(tmp_path: Path, count: int) -> None:
    made = job(tmp_path, "optim.lr=0.01")
    batches, rule = some_batches(made, count), curious(made.train_step)
    before = losses_now(made.train_step, batches)
    report = made.train_step.run(batches)
    after = losses_now(made.train_step, batches)
    told_before, told_after = rule.seen
    for task in ("semseg", "depth"):
        assert told_before[task] == report[task]
        assert told_before[task].item() == pytest.approx(before[task], rel=1e-5)
        assert told_after[task].item() == pytest.approx(after[task], rel=1e-5)
        assert abs(after[task] - before[task]) > 1e-3
        assert not told_after[task].requires_grad


def test_dropout_drops_the_same(tmp_path: Path) -> None:
    """At a learning rate of nearly 0 both looks are equal, which no other dropout gives."""
    made = job(tmp_path, DROPOUT, "optim.lr=1e-12")
    batches, rule = some_batches(made, 2), curious(made.train_step)
    made.train_step.run(batches)
    before, after = rule.seen
    assert before["depth"].item() == pytest.approx(after["depth"].item(), rel=1e-5)
    first, again = losses_now(made.train_step, batches), losses_now(made.train_step, batches)
    assert first["depth"] != pytest.approx(again["depth"], rel=1e-4)


@pytest.mark.parametrize("overrides", [(), (DROPOUT, "train.amp=bf16")])
def test_it_leaves_no_trace(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """Weights, running statistics, gradients and random numbers are those without it."""
    states = []
    for looks in (True, False):
        made = job(tmp_path / str(looks), *overrides)
        rule = curious(made.train_step)
        rule.needs_post_step_losses = looks
        torch.manual_seed(3)
        for batch in some_batches(made, 3):
            made.train_step.run([batch])
        assert hasattr(rule, "seen") == looks
        state = {name: each.clone() for name, each in made.train_step.model.state_dict().items()}
        states.append({**state, "random": torch.get_rng_state()})
    assert any("running_mean" in name for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_skipped_step_is_not_looked_at(tmp_path: Path) -> None:
    made = job(tmp_path, "train.on_non_finite=skip")
    rule, (batch,) = curious(made.train_step), some_batches(made, 1)
    with torch.no_grad():
        next(iter(made.train_step.model.parameters())).fill_(torch.nan)
    made.train_step.run([batch])
    assert not hasattr(rule, "seen")


@pytest.mark.parametrize(("name", "forwards"), [("fixed", 2), ("gls", 4), ("famo", 6)])
def test_only_rules_that_ask_pay(tmp_path: Path, name: str, forwards: int) -> None:
    made = job(tmp_path, f"balancing={{name: {name}}}")
    passes: list[int] = []
    made.train_step.model.decoder.register_forward_hook(lambda *_: passes.append(1))
    made.train_step.run(some_batches(made, 2))
    assert len(passes) == forwards
