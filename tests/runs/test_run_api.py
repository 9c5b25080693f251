"""Functions that train and evaluate from Python like the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import densemtl
from densemtl.errors import ConfigError
from densemtl.results.results import load_results
from densemtl.runs.run_api import format_overrides
from tests.helpers.experiments import write_tiny_config


def test_train_and_evaluate_give_the_same_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_tiny_config(tmp_path)
    overrides = {"train.epochs": 1, "tasks": ["depth"], "decoder": {"name": "single_task"}}
    results = densemtl.train(config, overrides, device="cpu")
    assert results == load_results(Path("runs/tiny"))
    assert list(results.tasks) == ["depth"]
    evaluated = densemtl.evaluate("runs/tiny", ["loader.eval_batch_size=1"], device="cpu")
    assert evaluated.weights_hash == results.weights_hash
    assert evaluated.tasks["depth"].value == pytest.approx(results.tasks["depth"].value, rel=1e-6)


def test_shipped_configuration_is_trained_by_name(tmp_path):
    small = {"data.train_images": 16, "data.val_images": 2, "baselines": "none"}
    small |= {
        "backbone": {"name": "test_resnet", "pretrained": False},
        "input.size": [32, 40],
        "data.size": [32, 40],
    }
    results = densemtl.train("synthetic/quick", small, output=tmp_path / "run", max_steps=1)
    assert (results.step, results.complete) == (1, False)
    assert results.run["backbone"] == "test_resnet"


def test_wrong_override_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"optim\.lrr: unknown key, did you mean 'lr'") as error:
        densemtl.train(write_tiny_config(tmp_path), {"optim.lrr": 1}, output=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_overrides_keep_their_values():
    values = {"a": 1e-4, "b": None, "c": [1, 2], "d": {"e": "x: y"}, "f": True, "g": Path("/d")}
    import yaml

    for text, (key, value) in zip(format_overrides(values), values.items(), strict=True):
        name, _, formatted = text.partition("=")
        expected = json.loads(json.dumps(value, default=str))
        assert (name, yaml.safe_load(formatted)) == (key, pytest.approx(expected))
