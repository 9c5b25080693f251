"""Every balancing rule in the loop: it trains, its weights are logged, and it resumes exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densemtl import registry
from densemtl.engine.checkpoint import load_weights
from densemtl.engine.run_log import read_log
from densemtl.engine.trainer import TrainingRun, train
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
RULES = registry.list_names("balancing")


def job(folder: Path, rule: str) -> TrainingRun:
    balancing = f"balancing={{name: {rule}{OPTIONS.get(rule, '')}}}"
    experiment = make_tiny_experiment(*SMALL, balancing)
    precision = make_execution_config(experiment.train, "cpu")
    return build_training_run(experiment, build_splits(experiment), folder, precision)


@pytest.mark.parametrize("rule", RULES)
def test_stopped_inside_an_epoch_and_gone_on_equals_never_stopped(
    tmp_path: Path, rule: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(job(whole, rule))
    train(job(parts, rule), max_steps=3)
    train(job(parts, rule))
    ours, theirs = (load_weights(each / "last" / "model.safetensors") for each in (whole, parts))
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in ours.tensors)
    lines = [line for line in read_log(whole / "log.jsonl") if line["kind"] == "train"]
    assert len(lines) == STEPS
    assert all(line["weight/semseg"] >= 0 <= line["weight/depth"] for line in lines)


def test_epochs_are_told_at_their_end(tmp_path: Path) -> None:
    """DWA weighs alike in two epochs of two steps; STCH, for one, such that weighted losses are."""
    course: dict[str, list[float]] = {}
    for rule in ("dwa", "stch"):
        train(job(tmp_path / rule, rule))
        lines = read_log(tmp_path / rule / "log.jsonl")
        steps = [line for line in lines if line["kind"] == "train"]
        factors = [1.0 if rule == "dwa" else line["depth"] for line in steps]
        course[rule] = [
            factor * line["weight/depth"] for factor, line in zip(factors, steps, strict=True)
        ]
    assert [each == pytest.approx(1) for each in course["dwa"]] == [True] * 4 + [False] * 2
    assert [each == pytest.approx(1) for each in course["stch"]] == [True] * 2 + [False] * 4


def test_a_rule_that_cannot_work_is_told_before_any_training(tmp_path: Path) -> None:
    settings = ("baselines=auto", "decoder={name: cross_stitch}", "balancing={name: db_mtl}")
    with pytest.raises(ConfigError, match=r"^balancing.scope: features: this architecture"):
        train_experiment(make_tiny_experiment(*settings), tmp_path / "run", "cpu")
    assert list(tmp_path.iterdir()) == []
