"""Tests of all balancing methods in the training loop: training, logged weights, exact resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densemtl import registry
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.run_log import read_log
from densemtl.engine.trainer import train
from densemtl.engine.weights_file import load_weights
from densemtl.errors import ConfigError
from densemtl.factory import build_splits
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from tests.helpers.experiments import make_tiny_experiment

STEPS = 6
SMALL = (
    *("data.train_images=4", "data.val_images=2", "train.epochs=3", "train.eval_every=3"),
    "head={name: linear}",
)
OPTIONS = {"stch": ", warmup_epochs: 1"}
METHODS = registry.list_names("balancing")


def make_run(folder: Path, method: str) -> TrainingRun:
    balancing = f"balancing={{name: {method}{OPTIONS.get(method, '')}}}"
    experiment = make_tiny_experiment(*SMALL, balancing)
    execution = make_execution_config(experiment.train, "cpu")
    return build_training_run(experiment, build_splits(experiment), folder, execution)


@pytest.mark.parametrize("method", METHODS)
def test_resume_inside_an_epoch_is_bit_exact(tmp_path: Path, method: str) -> None:
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    train(make_run(uninterrupted, method))
    train(make_run(resumed, method), max_steps=3)
    train(make_run(resumed, method))
    expected, actual = (
        load_weights(folder / "last" / "model.safetensors").tensors
        for folder in (uninterrupted, resumed)
    )
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    lines = [line for line in read_log(uninterrupted / "log.jsonl") if line["kind"] == "train"]
    assert len(lines) == STEPS
    assert all(line["weight/semseg"] >= 0 <= line["weight/depth"] for line in lines)


def test_methods_are_notified_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    """In the first epochs, DWA gives equal weights (2 epochs), STCH equal weighted losses (1)."""
    values: dict[str, list[float]] = {}
    for method in ("dwa", "stch"):
        train(make_run(tmp_path / method, method))
        lines = read_log(tmp_path / method / "log.jsonl")
        steps = [line for line in lines if line["kind"] == "train"]
        factors = [1.0 if method == "dwa" else line["depth"] for line in steps]
        values[method] = [
            factor * line["weight/depth"] for factor, line in zip(factors, steps, strict=True)
        ]
    assert [value == pytest.approx(1) for value in values["dwa"]] == [True] * 4 + [False] * 2
    assert [value == pytest.approx(1) for value in values["stch"]] == [True] * 2 + [False] * 4


def test_incompatible_method_is_rejected_before_training(tmp_path: Path) -> None:
    settings = ("baselines=auto", "decoder={name: cross_stitch}", "balancing={name: db_mtl}")
    with pytest.raises(ConfigError, match=r"^balancing.scope: features: this architecture"):
        train_experiment(make_tiny_experiment(*settings), tmp_path / "run", "cpu")
    assert list(tmp_path.iterdir()) == []
