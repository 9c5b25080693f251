"""Tests of the training loop: its files, decreasing losses, exact resume and error handling."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import pytest
import torch

from densemtl.engine.loss_monitor import NonFiniteLossError
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.run_log import read_log
from densemtl.engine.trainer import train
from densemtl.engine.weights_file import load_weights
from densemtl.errors import ConfigError, DataError, ResultsError
from densemtl.factory import build_splits
from densemtl.results.results import load_results
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from tests.helpers.exact import SINGLE_TOLERANCE, assert_all_same
from tests.helpers.experiments import make_tiny_experiment


def make_run(folder: Path, *overrides: str) -> TrainingRun:
    experiment = make_tiny_experiment(*overrides)
    return build_training_run(
        experiment, build_splits(experiment), folder, make_execution_config(experiment.train, "cpu")
    )


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(folder / "last" / "model.safetensors").tensors


def assert_equal_runs(first: Path, second: Path) -> None:
    expected, actual = load_tensors(first), load_tensors(second)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.usefixtures("drawn_figures")
def test_run_writes_all_files(tmp_path: Path) -> None:
    train_experiment(make_tiny_experiment(), tmp_path, "cpu")
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        "config.yaml",
        "best.safetensors",
        "last",
        "results.json",
        "log.jsonl",
        "curves.png",
    }
    assert cv2.imread(str(tmp_path / "curves.png")) is not None
    assert list((tmp_path / "panels").glob("*.png"))
    results = load_results(tmp_path)
    assert results.complete
    assert results.images == 4
    assert set(results.tasks) == {"semseg", "depth"}
    kinds = [line["kind"] for line in read_log(tmp_path / "log.jsonl")]
    assert kinds.count("val") == 2
    assert kinds.count("train") == 8


def test_results_are_those_of_the_best_weights(tmp_path: Path) -> None:
    from densemtl.engine.loading import load_trained_model
    from densemtl.runs.evaluate_run import evaluate_model

    train_experiment(make_tiny_experiment("optim.lr=0.02", "train.epochs=3"), tmp_path, "cpu")
    results = load_results(tmp_path)
    evaluated = evaluate_model(load_trained_model(tmp_path, device="cpu"), "val")
    assert evaluated.weights_hash == results.weights_hash
    for task, result in results.tasks.items():
        assert evaluated.tasks[task].metrics == pytest.approx(result.metrics, rel=1e-6, nan_ok=True)


def test_losses_decrease(tmp_path: Path) -> None:
    train_experiment(
        make_tiny_experiment("train.epochs=12", "train.eval_every=12", "optim.lr=1e-2"),
        tmp_path,
        "cpu",
    )
    lines = [line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "train"]
    assert lines[-1]["total"] < 0.6 * lines[0]["total"]


SETTINGS = [
    (),
    ("train.ema_decay=0.9", "train.grad_accum_steps=2", "balancing={name: uncertainty}"),
    ("head={name: deeplabv3}", "train.amp=bf16", "train.max_grad_norm=1"),
    ("loader.num_workers=1", "train.checkpoint_every_steps=3", "augment.scale_range=[1.0, 1.5]"),
    (
        "decoder={name: mlore, width: 8, experts: 3, top_k: 2, min_rank: 2, task_rank: 2}",
        "head={name: linear}",
    ),
]


@pytest.mark.parametrize(
    "settings", SETTINGS, ids=["plain", "ema", "dropout", "inside_epoch", "router_noise"]
)
def test_resume_is_bit_exact(tmp_path: Path, settings: tuple[str, ...]) -> None:
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    train(make_run(uninterrupted, *settings))
    train(make_run(resumed, *settings), max_steps=3)
    train(make_run(resumed, *settings))
    assert_equal_runs(uninterrupted, resumed)


def test_run_killed_during_validation_repeats_the_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checkpoint is saved at the last step of the epoch before validation has finished."""
    settings = ("train.epochs=2", "train.checkpoint_every_steps=2")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("densemtl.engine.trainer.validate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(make_run(tmp_path / "resumed", *settings))
    train(make_run(tmp_path / "resumed", *settings))
    train(make_run(tmp_path / "uninterrupted", *settings))
    assert_equal_runs(tmp_path / "uninterrupted", tmp_path / "resumed")
    kinds = [line["kind"] for line in read_log(tmp_path / "resumed" / "log.jsonl")]
    assert kinds.count("val") == 2


def test_weights_are_determined_by_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(make_run(tmp_path / name, f"seed={seed}"), max_steps=2)
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_equal_runs(tmp_path / "a", tmp_path / "c")


def test_two_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    """Without batch statistics and dropout, gradient accumulation does not change the step.

    The model is in double precision, but losses are computed in float32.
    """
    overrides = (
        "backbone={name: test_convnext, pretrained: false}",
        "head={name: linear}",
        "tasks=[depth]",
        "augment.flip_prob=0",
        "optim={name: momentum, lr: 0.01}",
    )
    for name, settings in (
        ("joint", "loader.batch_size=4"),
        ("accumulated", "train.grad_accum_steps=2"),
    ):
        run = make_run(tmp_path / name, *overrides, settings)
        run.train_step.model.double()
        train(run, max_steps=1)
    joint, accumulated = load_tensors(tmp_path / "joint"), load_tensors(tmp_path / "accumulated")
    assert joint.keys() == accumulated.keys()
    assert_all_same(
        [joint[name] for name in accumulated], list(accumulated.values()), SINGLE_TOLERANCE
    )


def test_best_weights_are_the_moving_average(tmp_path: Path) -> None:
    train(make_run(tmp_path, "train.ema_decay=0.9", "train.epochs=1"))
    best, last = load_weights(tmp_path / "best.safetensors").tensors, load_tensors(tmp_path)
    assert not all(torch.equal(best[name], last[name]) for name in best)


def test_non_finite_loss_raises_an_error_with_task_and_step(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with torch.no_grad():
        next(iter(run.train_step.model.parameters())).fill_(math.nan)
    with pytest.raises(NonFiniteLossError, match=r"depth is nan.* at step 1"):
        train(run)
    assert not (tmp_path / "last").exists()


def test_step_with_non_finite_loss_is_skipped_if_configured(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.on_non_finite=skip")
    batch = next(iter(run.train_loader))
    before = [parameter.clone() for parameter in run.train_step.model.parameters()]
    run.train_step.balancer.task_weights.fill_(math.inf)
    run.train_step.run([batch])
    after = list(run.train_step.model.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def break_gradient(run: TrainingRun, task: str, step: int, value: float) -> None:
    """Multiply a gradient of a task by NaN or infinity at one step, while losses stay finite."""
    steps = iter(range(1, 100))
    weight = run.train_step.model.parameter_groups()[task][0]
    weight.register_hook(lambda gradient: gradient * value if next(steps) == step else gradient)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step", [3, 4])
def test_non_finite_weights_are_not_saved(tmp_path: Path, step: int, value: float) -> None:
    """Check a step inside the epoch and its last step, at which best weights are saved too."""
    broken = make_run(tmp_path, "train.checkpoint_every_steps=1", "train.epochs=1")
    break_gradient(broken, "depth", step, value)
    with pytest.raises(NonFiniteLossError, match=rf"^weights of depth are not .* at step {step}:"):
        train(broken)
    assert all(tensor.isfinite().all() for tensor in load_tensors(tmp_path).values())
    assert not (tmp_path / "best.safetensors").exists()
    resumed = make_run(tmp_path, "train.checkpoint_every_steps=1", "train.epochs=1")
    assert resumed.state.progress.step == step - 1
    train(resumed)


def test_step_with_non_finite_gradient_is_skipped_if_configured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, "train.on_non_finite=skip", "train.epochs=1")
    break_gradient(run, "semseg", 2, math.nan)
    train(run)
    assert "step 2 skipped: gradient is nan" in capsys.readouterr().out
    assert all(tensor.isfinite().all() for tensor in load_tensors(tmp_path).values())


def test_too_few_images_for_one_step_raise_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"8 training images do not fill one step of 5 batches"):
        make_run(tmp_path, "train.grad_accum_steps=5")


def test_run_folder_of_another_experiment_is_rejected(tmp_path: Path) -> None:
    train_experiment(make_tiny_experiment("train.epochs=1"), tmp_path, "cpu", max_steps=1)
    with pytest.raises(ConfigError, match=r"optim\.lr is 0\.001 there, 0\.5 here"):
        train_experiment(make_tiny_experiment("train.epochs=1", "optim.lr=0.5"), tmp_path, "cpu")
    assert train_experiment(
        make_tiny_experiment("train.epochs=1", "train.log_every_steps=3"), tmp_path, "cpu"
    ).complete


def test_baselines_are_trained_once_and_give_delta_m(tmp_path: Path) -> None:
    settings = ("train.epochs=1", "baselines=auto")
    results = train_experiment(make_tiny_experiment(*settings), tmp_path / "multi", "cpu")
    folders = sorted((tmp_path / "baselines").iterdir())
    assert [folder.name.split("-")[1] for folder in folders] == ["depth", "semseg"]
    baselines = {folder.name.split("-")[1]: load_results(folder) for folder in folders}
    gains = []
    for task, sign in (("semseg", 1), ("depth", -1)):
        single, multi = baselines[task].tasks[task].value, results.tasks[task].value
        gains.append(sign * 100 * (multi - single) / single)
    assert results.delta_m == pytest.approx(sum(gains) / 2)
    mtimes = [(folder / "best.safetensors").stat().st_mtime_ns for folder in folders]
    train_experiment(
        make_tiny_experiment(*settings, "decoder.name=hard_sharing", "seed=0"),
        tmp_path / "second",
        "cpu",
    )
    assert sorted((tmp_path / "baselines").iterdir()) == folders
    assert [(folder / "best.safetensors").stat().st_mtime_ns for folder in folders] == mtimes


def test_results_file_contains_no_nan(tmp_path: Path) -> None:
    train_experiment(make_tiny_experiment("train.epochs=1"), tmp_path, "cpu", max_steps=1)
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text
    assert not json.loads(text)["complete"]


def test_user_supplied_baselines_are_checked_before_training(tmp_path: Path) -> None:
    for task in ("semseg", "depth"):
        train_experiment(
            make_tiny_experiment("train.epochs=1").to_single_task(task), tmp_path / task, "cpu"
        )
    baselines = f"baselines={{semseg: {tmp_path}/semseg, depth: {tmp_path}/depth/results.json}}"
    results = train_experiment(
        make_tiny_experiment("train.epochs=1", baselines), tmp_path / "multi", "cpu"
    )
    assert results.delta_m is not None
    for changes, message in (
        (("protocol=modern",), "its protocol is survey, but that of this run is modern"),
        (("data.seed=1",), "its split is"),
        (("tasks=[semseg]",), "depth: no such task in this run"),
        (("tasks=[semseg, depth, edge]",), "no single-task result for edge"),
    ):
        experiment = make_tiny_experiment("train.epochs=1", baselines, *changes)
        with pytest.raises(ResultsError, match=message):
            train_experiment(experiment, tmp_path / "never", "cpu")
        assert not (tmp_path / "never").exists()
