"""Training with several datasets: exact resume, metrics of each set, and the logged losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from densemtl.engine.run_log import read_log
from densemtl.engine.trainer import TrainingRun, train
from densemtl.factory import build_splits
from densemtl.results.results import load_results
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from tests.engine.test_trainer import assert_equal_runs
from tests.helpers.mixed_sets import make_data, make_mixed_experiment, make_sets

ONE_SET = make_data(
    make_sets(rooms={"augment": {"scale_range": [1.0, 1.5]}}),
    weights={"rooms": 1, "depths": 2, "others": 1},
    epoch_images=8,
    one_set_per_batch=True,
)


def make_run(folder: Path, data: dict, *overrides: str) -> TrainingRun:
    experiment = make_mixed_experiment("train.epochs=1", *overrides, data=data)
    execution = make_execution_config(experiment.train, "cpu")
    return build_training_run(experiment, build_splits(experiment), folder, execution)


def test_resume_within_an_epoch_is_bit_exact(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run = make_run(whole, ONE_SET, "balancing={name: uncertainty}")
    assert run.steps_per_epoch == 4
    train(run)
    for max_steps in (2, None):
        train(make_run(resumed, ONE_SET, "balancing={name: uncertainty}"), max_steps)
    assert_equal_runs(whole, resumed)
    check_logged_losses(whole)


def check_logged_losses(folder: Path) -> None:
    """Check that a step logs no loss of 0 for the tasks of other sets."""
    lines = [line for line in read_log(folder / "log.jsonl") if line["kind"] == "train"]
    logged = [[task for task in ("semseg", "depth", "things") if task in line] for line in lines]
    assert sorted(names[0] for names in logged) == ["depth", "depth", "semseg", "things"]
    assert all(len(names) == 1 for names in logged)


def test_results_and_baselines_of_a_mixture(tmp_path: Path) -> None:
    """Each single-task baseline trains on the sets of its task, and can be compared."""
    sets = make_sets(others={"tasks": ["semseg"]})
    overrides = ("tasks=[semseg, depth]", "train.epochs=1", "baselines=auto")
    experiment = make_mixed_experiment(*overrides, data=make_data(sets))
    train_experiment(experiment, tmp_path / "run", "cpu")
    results = load_results(tmp_path / "run")
    numbers = {"rooms": (6, 2), "depths": (4, 2), "others": (2, 2)}
    assert results.set_images == {
        name: {"train": train, "val": val} for name, (train, val) in numbers.items()
    }
    semseg, depth = results.tasks["semseg"].metrics, results.tasks["depth"].metrics
    assert semseg["mIoU"] == pytest.approx((semseg["rooms/mIoU"] + semseg["others/mIoU"]) / 2)
    assert (semseg["images"], depth["images"], results.images) == (4, 2, 6)
    assert set(results.baselines) == {"semseg", "depth"}
    single = load_results(tmp_path / results.baselines["depth"].file)
    assert single.images == 2
    assert single.split_fingerprint == results.split_fingerprint
