"""Extension of finished runs: learning rates, exact resume, history of results, errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from densemtl.config.experiment import ExperimentConfig
from densemtl.config.sections import ScheduleConfig, TrainConfig
from densemtl.engine.checkpoint import read_checkpoint
from densemtl.engine.optimizer import LRSchedule, RunSchedule
from densemtl.engine.weights_file import load_weights
from densemtl.errors import ConfigError
from densemtl.results.results import Results, load_results
from densemtl.runs.extension import Extension, describe_shorter_baselines, make_extension
from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import make_tiny_experiment

SMALL = ("train.epochs=1", "tasks=[depth]", "decoder={name: single_task}", "trackers=[]")
STEPS = 4
"""Optimizer steps per epoch of the tiny experiment."""


def make_experiment(*overrides: str) -> ExperimentConfig:
    return make_tiny_experiment(*SMALL, *overrides)


def run(
    folder: Path,
    *overrides: str,
    extension: Extension | None = None,
    max_steps: int | None = None,
) -> Results:
    return train_experiment(make_experiment(*overrides), folder, "cpu", max_steps, extension)


def load_last(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(folder / "last" / "model.safetensors").tensors


def get_step(folder: Path) -> int:
    checkpoint = read_checkpoint(folder)
    assert checkpoint is not None
    return int(checkpoint[1]["record"]["step"])


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", ["poly", "cosine", "constant"])
def test_schedule_of_an_extension_is_a_warm_restart(name: str, interval: str) -> None:
    config = ScheduleConfig.model_validate(
        {"name": name, "interval": interval, "warmup_epochs": 0.5, "min_lr": 0.001}
    )
    extensions = [
        {"start_step": 10, "epochs": 3, "lr_factor": 0.1},
        {"start_step": 25, "epochs": 1, "lr_factor": 1},
    ]
    train = TrainConfig.model_validate({"epochs": 2, "extensions": extensions})

    def make_optimizer() -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)

    def read_rates(schedule: LRSchedule | RunSchedule, steps: range) -> list[float]:
        rates = []
        for step in steps:
            schedule.set_lr(step)
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    optimizer = make_optimizer()
    rates = read_rates(RunSchedule(config, optimizer, train, 5), range(30))
    resumed = read_rates(RunSchedule(config, optimizer, train, 5), range(12, 30))
    assert resumed == rates[12:]
    cold = config.model_copy(update={"warmup_epochs": 0.0})
    for first, length, settings, factor in (
        (0, 2, config, 1),
        (10, 3, cold, 0.1),
        (25, 1, cold, 1),
    ):
        optimizer = make_optimizer()
        part = read_rates(LRSchedule(settings, optimizer, length, 5), range(5 * length))
        assert rates[first : first + 5 * length] == pytest.approx([factor * lr for lr in part])


def test_interrupted_extension_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts, fresh = tmp_path / "whole", tmp_path / "parts", tmp_path / "fresh"
    extension = Extension(2, 0.5)
    base = run(whole)
    shutil.copytree(whole, parts)
    extended = run(whole, extension=extension)
    incomplete = run(parts, extension=extension, max_steps=STEPS + 3)
    assert not incomplete.complete
    assert load_results(parts) == base
    resumed = run(parts, extension=extension)
    assert get_step(whole) == get_step(parts) == 3 * STEPS
    scratch = run(fresh, f"train.extensions=[{{start_step: {STEPS}, epochs: 2, lr_factor: 0.5}}]")
    tensors = load_last(whole)
    for other in (parts, fresh):
        assert all(torch.equal(tensors[name], value) for name, value in load_last(other).items())
    for results in (resumed, scratch):
        assert results.tasks == extended.tasks
        assert results.weights_hash == extended.weights_hash
        assert results.config_hash == extended.config_hash != base.config_hash
    assert scratch.history == []
    (earlier,) = load_results(whole).history
    assert earlier.metrics == {name: task.metrics for name, task in base.tasks.items()}
    assert (earlier.steps, earlier.weights_hash) == (STEPS, base.weights_hash)
    assert run(whole).history == [earlier]  # the plain command keeps a finished extension
    assert get_step(whole) == 3 * STEPS
    again = run(whole, extension=Extension(1))
    assert [entry.steps for entry in again.history] == [STEPS, 3 * STEPS]
    assert get_step(whole) == 4 * STEPS
    saved = yaml.safe_load((whole / "config.yaml").read_text())["train"]["extensions"]
    assert [entry["start_step"] for entry in saved] == [STEPS, 3 * STEPS]


def test_extension_after_early_stopping_trains_all_its_epochs(tmp_path: Path) -> None:
    stopping = ("train.epochs=9", "train.early_stopping={patience: 1, min_delta: 1000}")
    base = run(tmp_path, *stopping)
    assert base.stop_reason
    stopped_at = get_step(tmp_path)
    results = run(tmp_path, *stopping, extension=Extension(1))
    assert results.complete
    assert results.stop_reason == ""
    assert get_step(tmp_path) == stopped_at + STEPS


def test_unsuitable_runs_are_not_extended(tmp_path: Path) -> None:
    def fail(message: str, *overrides: str, epochs: int = 1, folder: Path = tmp_path) -> None:
        before = {file: file.read_bytes() for file in folder.glob("*.*")}
        with pytest.raises(ConfigError, match=message) as error:
            run(folder, *overrides, extension=Extension(epochs))
        assert "\n" not in str(error.value)
        assert {file: file.read_bytes() for file in folder.glob("*.*")} == before

    fail("no run to extend", folder=tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    run(tmp_path, max_steps=1)
    fail("is not finished; finish it without --extend first")
    run(tmp_path)
    fail(r"optim\.lr is 0\.001 there, 0\.5 here", "optim.lr=0.5")
    run(tmp_path, extension=Extension(2), max_steps=STEPS + 1)
    fail("by 2 epochs is not finished; finish it first, by --extend 2 --extend-lr 1", epochs=1)
    assert get_step(tmp_path) == STEPS + 1


@pytest.mark.parametrize(
    ("epochs", "factor", "message"),
    [
        (0, None, "--extend: must be"),
        (2, 0.0, "--extend-lr: must"),
        (2, float("nan"), "not nan"),
        (None, 0.1, "--extend-lr: only with --extend N"),
        (None, 1.0, "--extend-lr: only with --extend N"),
    ],
)
def test_wrong_numbers_are_errors(epochs: int | None, factor: float | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_extension(epochs, factor)


def test_extension_changes_the_hash_and_not_the_baselines() -> None:
    base = make_tiny_experiment("baselines=auto")
    entry = "{start_step: 8, epochs: 3}"
    extended = make_tiny_experiment("baselines=auto", f"train.extensions=[{entry}]")
    assert extended.compute_config_hash() != base.compute_config_hash()
    assert extended.to_single_task("depth") == base.to_single_task("depth")
    assert describe_shorter_baselines(base) == []
    assert "extended by 3 epochs" in describe_shorter_baselines(extended)[0]
