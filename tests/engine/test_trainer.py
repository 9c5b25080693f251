"""The loop: what it writes, that it learns, and that nothing is lost however it is stopped."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from densemtl.engine.checkpoint import load_weights
from densemtl.engine.loss_monitor import NonFiniteLossError
from densemtl.engine.run_log import read_log
from densemtl.engine.trainer import TrainingRun, train
from densemtl.errors import ConfigError, DataError, ResultsError
from densemtl.factory import build_splits
from densemtl.results.results import load_results
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from tests.helpers.exact import SINGLE_TOLERANCE, assert_all_same
from tests.helpers.experiments import make_tiny_experiment


def job(folder: Path, *overrides: str) -> TrainingRun:
    experiment = make_tiny_experiment(*overrides)
    return build_training_run(
        experiment, build_splits(experiment), folder, make_execution_config(experiment.train, "cpu")
    )


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(folder / "last" / "model.safetensors").tensors


def assert_equal_runs(one: Path, other: Path) -> None:
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_leaves_what_it_promises(tmp_path: Path) -> None:
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
    assert list((tmp_path / "panels").glob("*.png"))
    results = load_results(tmp_path)
    assert results.complete
    assert results.images == 4
    assert set(results.tasks) == {"semseg", "depth"}
    kinds = [line["kind"] for line in read_log(tmp_path / "log.jsonl")]
    assert kinds.count("val") == 2
    assert kinds.count("train") == 8


@pytest.mark.usefixtures("no_figures")
def test_results_are_those_of_the_best_weights(tmp_path: Path) -> None:
    from densemtl.engine.loading import load_trained_model
    from densemtl.runs.evaluate_run import evaluate_model

    train_experiment(make_tiny_experiment("optim.lr=0.02", "train.epochs=3"), tmp_path, "cpu")
    results, again = (
        load_results(tmp_path),
        evaluate_model(load_trained_model(tmp_path, device="cpu"), "val"),
    )
    assert again.weights_hash == results.weights_hash
    for task, result in results.tasks.items():
        assert again.tasks[task].metrics == pytest.approx(result.metrics, rel=1e-6, nan_ok=True)


@pytest.mark.usefixtures("no_figures")
def test_losses_fall(tmp_path: Path) -> None:
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
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "ema", "dropout", "inside_epoch"])
def test_stopped_and_gone_on_equals_never_stopped(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(job(whole, *settings))
    train(job(parts, *settings), max_steps=3)
    train(job(parts, *settings))
    assert_equal_runs(whole, parts)


def test_a_kill_while_validating_loses_no_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint inside the epoch falls on its last step, where validation is still to come."""
    settings = ("train.epochs=2", "train.checkpoint_every_steps=2")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("densemtl.engine.trainer._validate", killed)
        with pytest.raises(KeyboardInterrupt):
            train(job(tmp_path / "parts", *settings))
    train(job(tmp_path / "parts", *settings))
    train(job(tmp_path / "whole", *settings))
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    kinds = [line["kind"] for line in read_log(tmp_path / "parts" / "log.jsonl")]
    assert kinds.count("val") == 2


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(job(tmp_path / name, f"seed={seed}"), max_steps=2)
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_equal_runs(tmp_path / "a", tmp_path / "c")


def test_accumulating_halves_equals_one_batch(tmp_path: Path) -> None:
    """Without batch statistics and dropout two halves are the same step as the whole.

    Losses are computed in float32; all else is in double precision here.
    """
    plain = (
        "backbone={name: test_convnext, pretrained: false}",
        "head={name: linear}",
        "tasks=[depth]",
        "augment.flip_prob=0",
        "optim={name: momentum, lr: 0.01}",
    )
    for name, settings in (
        ("whole", "loader.batch_size=4"),
        ("halves", "train.grad_accum_steps=2"),
    ):
        made = job(tmp_path / name, *plain, settings)
        made.train_step.model.double()
        train(made, max_steps=1)
    ours, theirs = tensors(tmp_path / "whole"), tensors(tmp_path / "halves")
    assert ours.keys() == theirs.keys()
    assert_all_same([ours[name] for name in theirs], list(theirs.values()), SINGLE_TOLERANCE)


def test_the_averaged_weights_are_what_is_kept(tmp_path: Path) -> None:
    train(job(tmp_path, "train.ema_decay=0.9", "train.epochs=1"))
    best, last = load_weights(tmp_path / "best.safetensors").tensors, tensors(tmp_path)
    assert not all(torch.equal(best[name], last[name]) for name in best)


def test_a_loss_that_is_not_finite_is_named(tmp_path: Path) -> None:
    broken = job(tmp_path)
    with torch.no_grad():
        next(iter(broken.train_step.model.parameters())).fill_(math.nan)
    with pytest.raises(NonFiniteLossError, match=r"depth is nan.* at step 1"):
        train(broken)
    assert not (tmp_path / "last").exists()


def test_a_step_that_is_not_finite_can_be_skipped(tmp_path: Path) -> None:
    broken = job(tmp_path, "train.on_non_finite=skip")
    batch = next(iter(broken.train_loader))
    before = [parameter.clone() for parameter in broken.train_step.model.parameters()]
    broken.train_step.balancer.task_weights.fill_(math.inf)
    broken.train_step.run([batch])
    after = list(broken.train_step.model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def break_gradient(broken: TrainingRun, task: str, step: int, value: float) -> None:
    """At that step the gradient of one of a task's weights is no number, though losses are."""
    steps = iter(range(1, 100))
    weight = broken.train_step.model.parameter_groups()[task][0]
    weight.register_hook(lambda gradient: gradient * value if next(steps) == step else gradient)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step", [3, 4])
def test_weights_that_are_not_finite_replace_no_checkpoint(
    tmp_path: Path, step: int, value: float
) -> None:
    """Inside the epoch, and at its end, where the best weights would be written too."""
    broken = job(tmp_path, "train.checkpoint_every_steps=1", "train.epochs=1")
    break_gradient(broken, "depth", step, value)
    with pytest.raises(NonFiniteLossError, match=rf"^weights of depth are not .* at step {step}:"):
        train(broken)
    assert all(each.isfinite().all() for each in tensors(tmp_path).values())
    assert not (tmp_path / "best.safetensors").exists()
    whole = job(tmp_path, "train.checkpoint_every_steps=1", "train.epochs=1")
    assert whole.state.progress.step == step - 1
    train(whole)


def test_a_gradient_that_is_not_finite_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forgiving = job(tmp_path, "train.on_non_finite=skip", "train.epochs=1")
    break_gradient(forgiving, "semseg", 2, math.nan)
    train(forgiving)
    assert "step 2 skipped: gradient is nan" in capsys.readouterr().out
    assert all(each.isfinite().all() for each in tensors(tmp_path).values())


def test_too_few_images_for_one_step_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"8 training images do not fill one step of 5 batches"):
        job(tmp_path, "train.grad_accum_steps=5")


@pytest.mark.usefixtures("no_figures")
def test_a_folder_is_not_shared_by_two_experiments(tmp_path: Path) -> None:
    train_experiment(make_tiny_experiment("train.epochs=1"), tmp_path, "cpu", max_steps=1)
    with pytest.raises(ConfigError, match=r"optim\.lr is 0\.001 there, 0\.5 here"):
        train_experiment(make_tiny_experiment("train.epochs=1", "optim.lr=0.5"), tmp_path, "cpu")
    assert train_experiment(
        make_tiny_experiment("train.epochs=1", "train.log_every_steps=3"), tmp_path, "cpu"
    ).complete


@pytest.mark.usefixtures("no_figures")
def test_baselines_are_trained_once_and_give_delta_m(tmp_path: Path) -> None:
    settings = ("train.epochs=1", "baselines=auto")
    results = train_experiment(make_tiny_experiment(*settings), tmp_path / "multi", "cpu")
    folders = sorted((tmp_path / "baselines").iterdir())
    assert [folder.name.split("-")[1] for folder in folders] == ["depth", "semseg"]
    singles = {folder.name.split("-")[1]: load_results(folder) for folder in folders}
    gains = []
    for task, sign in (("semseg", 1), ("depth", -1)):
        single, multi = singles[task].tasks[task].value, results.tasks[task].value
        gains.append(sign * 100 * (multi - single) / single)
    assert results.delta_m == pytest.approx(sum(gains) / 2)
    written = [(folder / "best.safetensors").stat().st_mtime_ns for folder in folders]
    train_experiment(
        make_tiny_experiment(*settings, "decoder.name=hard_sharing", "seed=0"),
        tmp_path / "again",
        "cpu",
    )
    assert sorted((tmp_path / "baselines").iterdir()) == folders
    assert [(folder / "best.safetensors").stat().st_mtime_ns for folder in folders] == written


@pytest.mark.usefixtures("no_figures")
def test_results_hold_no_nan(tmp_path: Path) -> None:
    train_experiment(make_tiny_experiment("train.epochs=1"), tmp_path, "cpu", max_steps=1)
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text
    assert not json.loads(text)["complete"]


@pytest.mark.usefixtures("no_figures")
def test_given_references_are_checked_before_training(tmp_path: Path) -> None:
    for task in ("semseg", "depth"):
        train_experiment(
            make_tiny_experiment("train.epochs=1").to_single_task(task), tmp_path / task, "cpu"
        )
    given = f"baselines={{semseg: {tmp_path}/semseg, depth: {tmp_path}/depth/results.json}}"
    assert (
        train_experiment(
            make_tiny_experiment("train.epochs=1", given), tmp_path / "multi", "cpu"
        ).delta_m
        is not None
    )
    for changes, told in (
        (("protocol=modern",), "its protocol is survey, this run's is modern"),
        (("data.seed=1",), "its split is"),
        (("tasks=[semseg]",), "depth: no such task in this run"),
        (("tasks=[semseg, depth, edge]",), "no single-task result for edge"),
    ):
        with pytest.raises(ResultsError, match=told):
            train_experiment(
                make_tiny_experiment("train.epochs=1", given, *changes), tmp_path / "never", "cpu"
            )
        assert not (tmp_path / "never").exists()
