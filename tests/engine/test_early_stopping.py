"""Tests of early stopping: patience, exact resume, results and agreement of ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from densemtl.config.sections import EarlyStoppingConfig
from densemtl.engine.early_stopping import Patience, update_patience
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.trainer import train
from densemtl.errors import ConfigError
from densemtl.factory import build_splits
from densemtl.results.results import load_results
from densemtl.runs.record import build_results
from densemtl.tasks.base import Task
from tests.engine.test_trainer import assert_equal_runs, make_run
from tests.helpers.experiments import make_tiny_experiment

STOP = ("train.epochs=5", "train.early_stopping={patience: 1}", "loader.batch_size=4")
RMSE = {2: 3.0, 4: 2.0, 6: 2.5}
"""{step: score} of a run of five epochs of two steps, which ends early after the third."""


def find_stop(task: Task, values: Sequence[float], **options: Any) -> tuple[int, str]:
    """Return the number of validations until the end, and the reason."""
    patience, config = Patience(), EarlyStoppingConfig(**options)
    for number, value in enumerate(values, 1):
        reason = update_patience(patience, config, {task.name: value}, 10 * number, [task])
        if reason:
            return number, reason
    return len(values), ""


@pytest.mark.parametrize(
    ("values", "options", "stop"),
    [
        ([3, 2, 2.5, 2.4], {"patience": 2}, 4),
        ([3, 2, 2.5, 1.9, 2, 2], {"patience": 2}, 6),
        ([3, 2, 2.5, 2.4], {"patience": 3}, None),
        ([2, 1.99, 1.98, 1.97], {"patience": 2, "min_delta": 0.02}, 3),
        ([2, 1.97, 1.94, 1.91, 1.88], {"patience": 2, "min_delta": 0.02}, None),
        ([math.nan, math.nan, math.nan], {"patience": 2}, 3),
        ([math.nan, 2, 2], {"patience": 2}, None),
        ([2, 2], {"patience": 1}, 2),
    ],
)
def test_training_ends_after_validations_without_improvement(
    make_task: Callable[..., Task], values: list[float], options: dict[str, Any], stop: int | None
) -> None:
    """Small gains add up until they exceed `min_delta`."""
    number, reason = find_stop(make_task("depth"), values, **options)
    assert (number if reason else None) == stop


def test_reason_names_steps_and_limit(make_task: Callable[..., Task]) -> None:
    _, reason = find_stop(make_task("depth"), [2, 2, 2], patience=2, min_delta=0.01)
    assert reason == "no improvement by more than 0.01 in 2 validations from step 10 to 30"


def test_all_ranks_follow_the_first(
    make_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores could differ in rounding, and ranks that disagree would wait for each other."""
    path = "densemtl.engine.early_stopping.all_gather_object"
    monkeypatch.setattr(path, lambda value: ["first rank", value])
    assert find_stop(make_task("depth"), [2.0], patience=3) == (1, "first rank")


@pytest.fixture
def train_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int | None], TrainingRun]:
    """Return a function that trains a run with the scores `RMSE`."""

    def train_run(folder: Path, max_steps: int | None = None) -> TrainingRun:
        run = make_run(folder, *STOP)

        def evaluate(*_: object, **__: object) -> dict[str, dict[str, float]]:
            depth = {"rmse": RMSE.get(run.state.progress.step, 9.0), "rmse_per_image": 1.0}
            return {"depth": depth, "semseg": {"mIoU": 1.0}}

        monkeypatch.setattr("densemtl.engine.validation.evaluate", evaluate)
        train(run, max_steps)
        return run

    return train_run


def test_reason_is_printed_and_part_of_the_results(
    tmp_path: Path, train_to: Callable[..., TrainingRun], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_to(tmp_path)
    experiment = make_tiny_experiment(*STOP)
    reason = "no improvement in 1 validation from step 4 to 6"
    assert f"training ends early: {reason}" in capsys.readouterr().out
    results = build_results(experiment, build_splits(experiment), run, 1.0)
    results.save(tmp_path / "results.json")
    results = load_results(tmp_path)
    assert (results.complete, results.stop_reason, results.step) == (True, reason, 4)


def test_resume_ends_at_the_same_step(tmp_path: Path, train_to: Callable[..., TrainingRun]) -> None:
    """The extra validation of a run that was stopped inside an epoch does not count."""
    expected = train_to(tmp_path / "uninterrupted")
    assert train_to(tmp_path / "resumed", 3).state.progress.step == 3
    for _ in range(2):  # the second time, nothing is left to do
        assert train_to(tmp_path / "resumed").state.progress.step == 6
    assert_equal_runs(tmp_path / "uninterrupted", tmp_path / "resumed")
    assert expected.state.progress.stop_reason


@pytest.mark.parametrize(
    "override",
    ["train.early_stopping={patience: 0}", "train.early_stopping.min_delta=-1"],
)
def test_wrong_settings_are_one_line(override: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.early_stopping\.\w+: Input should be") as error:
        make_tiny_experiment(override)
    assert "\n" not in str(error.value)
