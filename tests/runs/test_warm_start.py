"""Tests of decoders with one network per task that start from single-task runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densemtl.engine.weights_file import load_weights
from densemtl.errors import CheckpointError, ConfigError
from densemtl.factory import build_splits
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from tests.helpers.exact import assert_same
from tests.helpers.experiments import make_tiny_experiment

SHORT = ("train.epochs=1", "decoder={name: cross_stitch, alpha: 1.0}")
TASKS = ("semseg", "depth")


@pytest.fixture(scope="module")
def single_task_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("single_task_runs")
    for task in TASKS:
        train_experiment(
            make_tiny_experiment("train.epochs=1").to_single_task(task), folder / task, "cpu"
        )
    return {task: folder / task for task in TASKS}


def format_runs(runs: dict[str, Path]) -> str:
    return "{" + ", ".join(f"{task}: {path}" for task, path in runs.items()) + "}"


def test_unmixed_networks_give_the_predictions_of_single_task_runs(
    single_task_runs: dict[str, Path], tmp_path: Path
) -> None:
    experiment = make_tiny_experiment(*SHORT)
    run = build_training_run(
        experiment,
        build_splits(experiment),
        tmp_path,
        make_execution_config(experiment.train, "cpu"),
        single_task_runs,
    )
    batch = next(iter(run.val_loader))
    with torch.no_grad():
        logits = run.train_step.model.eval().double()(batch.image).logits
    for task in TASKS:
        single = make_tiny_experiment("train.epochs=1").to_single_task(task)
        model = build_training_run(
            single,
            build_splits(single),
            tmp_path / task,
            make_execution_config(single.train, "cpu"),
        ).train_step.model
        model.load_state_dict(load_weights(single_task_runs[task] / "best.safetensors").tensors)
        with torch.no_grad():
            assert_same(logits[task], model.eval().double()(batch.image).logits[task])


def test_baselines_are_used_for_initialization_and_delta_m(
    single_task_runs: dict[str, Path], tmp_path: Path
) -> None:
    baselines = f"baselines={format_runs(single_task_runs)}"
    results = train_experiment(
        make_tiny_experiment(*SHORT, baselines, "init_from=baselines"), tmp_path / "run", "cpu"
    )
    assert results.delta_m is not None


def test_invalid_init_from_is_rejected_before_training(
    single_task_runs: dict[str, Path], tmp_path: Path
) -> None:
    init_from = f"init_from={format_runs(single_task_runs)}"
    one_run = f"init_from={{semseg: {single_task_runs['semseg']}}}"
    missing_run = f"init_from={{semseg: {tmp_path}, depth: x}}"
    hard_sharing = ("init_from=baselines", "decoder={name: hard_sharing}")
    for changes, error, message in (
        (hard_sharing, ConfigError, "no separate network per task"),
        (("init_from=baselines",), ConfigError, "this run has no baselines"),
        ((one_run,), ConfigError, "no single-task .* 'depth'"),
        (
            (init_from, "head.width=16"),
            CheckpointError,
            r"'semseg' from these weights: tensors: .* of another shape \('heads\.semseg",
        ),
        ((missing_run,), CheckpointError, "no finished valid"),
    ):
        with pytest.raises(error, match=message):
            train_experiment(make_tiny_experiment(*SHORT, *changes), tmp_path / "never", "cpu")
        assert not (tmp_path / "never").exists()
