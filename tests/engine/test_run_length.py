"""Tests of runs whose length and validations are given in steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from densemtl.config.experiment import load_saved, validate_experiment
from densemtl.config.sections import TrainConfig
from densemtl.config.yaml_loader import load_config
from densemtl.config.yaml_text import parse_value
from densemtl.engine.run_log import read_log
from densemtl.engine.trainer import train
from densemtl.errors import ConfigError
from tests.engine.test_trainer import assert_equal_runs, make_run
from tests.helpers.experiments import make_tiny_experiment

STEPS = ("train.steps=3", "train.eval_every_steps=1", "loader.batch_size=4")
"""One and a half epochs of two steps."""


def list_steps(folder: Path, kind: str) -> list[int]:
    return [line["step"] for line in read_log(folder / "log.jsonl") if line["kind"] == kind]


def test_run_ends_after_its_steps_is_validated_between_epochs_and_resumes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "uninterrupted", *STEPS)
    train(run)
    assert run.state.progress.step == run.total_steps == 3
    assert list_steps(tmp_path / "uninterrupted", "val") == [1, 2, 3]
    train(make_run(tmp_path / "resumed", *STEPS), max_steps=1)
    train(make_run(tmp_path / "resumed", *STEPS))
    assert_equal_runs(tmp_path / "uninterrupted", tmp_path / "resumed")


def test_validations_inside_an_epoch_do_not_change_the_weights(tmp_path: Path) -> None:
    train(make_run(tmp_path / "epochs", "train.epochs=1"))
    train(make_run(tmp_path / "steps", "train.steps=4", "train.eval_every_steps=3"))
    assert_equal_runs(tmp_path / "epochs", tmp_path / "steps")
    assert list_steps(tmp_path / "steps", "val") == [3, 4]


@pytest.mark.parametrize(
    ("key", "length"), [("steps", (None, 7)), ("epochs", (7, None))], ids=["steps", "epochs"]
)
@pytest.mark.parametrize("inherited", ["epochs: 9", "steps: 9"])
def test_length_replaces_the_inherited_one(
    tmp_path: Path, key: str, length: tuple[int | None, ...], inherited: str
) -> None:
    (tmp_path / "base.yaml").write_text(f"train: {{{inherited}}}", encoding="utf-8")
    (tmp_path / "run.yaml").write_text("base: base.yaml", encoding="utf-8")
    (tmp_path / "own.yaml").write_text(f"base: base.yaml\ntrain: {{{key}: 7}}", encoding="utf-8")
    whole = make_tiny_experiment().model_dump(mode="json", exclude={"train"})
    for file, overrides in (("own.yaml", []), ("run.yaml", [f"train.{key}=7"])):
        merged = load_config(tmp_path / file, overrides)
        merged.values.update({**whole, **merged.values})
        experiment = validate_experiment(merged)
        assert (experiment.train.epochs, experiment.train.steps) == length
        saved = load_saved(experiment.to_yaml(), tmp_path)
        assert (saved.train.epochs, saved.train.steps) == length
        assert saved.compute_config_hash() == experiment.compute_config_hash()


@pytest.mark.parametrize("value", ["7", "7.0", "0.7e1", "'7'"])
def test_steps_in_any_notation_replace_the_default_epochs(value: str) -> None:
    train = TrainConfig.model_validate(parse_value(f"{{steps: {value}}}"))
    assert (train.epochs, train.steps) == (None, 7)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("train.steps=3", "train.epochs=2"),
            "command line: train: set either epochs or steps, not both",
        ),
        (
            ("train.epochs=2", "train.steps=3"),
            "command line: train: set either epochs or steps, not both",
        ),
        (("train.epochs=null",), "train: set epochs or steps"),
        (("train.steps=0",), "train.steps: Input should be greater than or equal to 1, not 0"),
        (("train.eval_every_steps=0",), "train.eval_every_steps: Input should be greater than"),
    ],
)
def test_wrong_length_is_one_line(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_tiny_experiment(*overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
