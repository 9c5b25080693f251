"""Runs with adapters: resume, transfer, prediction, export, summary and the feature cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densemtl.analysis.model_summary import make_cost_table, summarize
from densemtl.engine.weights_file import load_weights
from densemtl.errors import ConfigError
from densemtl.export.exporter import export_model
from densemtl.export.wrapper import ExportWrapper
from densemtl.factory import build_model, build_tasks
from densemtl.inference.predictor import Predictor
from densemtl.models.trainable_parameters import count_trainable
from densemtl.runs.train_run import train_experiment
from densemtl.runs.transfer import transfer_weights
from tests.helpers.adapter_cases import randomize_adapters
from tests.helpers.experiments import make_tiny_experiment

PLAIN = ["backbone={name: test_vit, pretrained: false}"]
ADAPTED = ["backbone={name: test_vit, pretrained: false, adapters: {rank: 2}}"]


def build(*overrides: str) -> Any:
    experiment = make_tiny_experiment(*overrides)
    tasks = build_tasks(experiment)
    torch.manual_seed(0)
    return experiment, tasks, randomize_adapters(build_model(experiment, tasks)).eval()


def test_resumed_run_equals_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_experiment(make_tiny_experiment(*ADAPTED), whole, "cpu")
    train_experiment(make_tiny_experiment(*ADAPTED), parts, "cpu", max_steps=3)
    train_experiment(make_tiny_experiment(*ADAPTED), parts, "cpu")
    first, second = (
        load_weights(each / "last" / "model.safetensors").tensors for each in (whole, parts)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(name.endswith("adapter.up") and value.any() for name, value in first.items())


def test_weights_of_a_run_without_adapters_are_loaded(tmp_path: Path) -> None:
    train_experiment(make_tiny_experiment(*PLAIN), tmp_path / "run", "cpu", max_steps=1)
    experiment = make_tiny_experiment(*ADAPTED)
    model = build_model(experiment, build_tasks(experiment))
    report = transfer_weights(model, tmp_path / "run")
    assert not report.mismatched
    assert not report.unused
    assert report.missing
    assert all(".adapter." in name for name in report.missing)


def test_predictor_with_merged_adapters_predicts_the_same() -> None:
    experiment, tasks, model = build(*ADAPTED)
    image = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    plain, merged = (
        Predictor(model, tasks, experiment.input, device="cpu", merge_adapters=merge)
        for merge in (False, True)
    )
    np.testing.assert_allclose(plain(image)["depth"], merged(image)["depth"], atol=1e-5)
    assert count_trainable(model)["adapters"] > 0


def test_exported_network_has_merged_adapters(tmp_path: Path) -> None:
    _, tasks, model = build(*ADAPTED)
    images = [np.full((40, 40, 3), value, np.uint8) for value in (50, 200)]
    network = ExportWrapper(model, tasks, postprocess=False)
    report = export_model(network, (32, 48), images, tmp_path, "torch_export")
    differences = report["files"]["network.pt2"]["differences"]
    assert all(each["max"] < 1e-4 for each in differences.values())
    names = torch.export.load(tmp_path / "network.pt2").state_dict
    assert names
    assert not any(".adapter." in name for name in names)


def test_summary_prints_trained_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    experiment, _, model = build(*ADAPTED)
    summary = summarize(experiment)
    counts = count_trainable(model)
    assert summary.to_dict()["trainable"] == counts
    Console(width=120).print(make_cost_table(summary))
    printed = capsys.readouterr().out
    trained = f"{sum(counts.values()):,} parameters are trained: "
    assert f"{trained}adapters {counts['adapters']:,}, decoder {counts['decoder']:,}" in printed
    Console(width=120).print(make_cost_table(summarize(make_tiny_experiment(*PLAIN))))
    assert "are trained" not in capsys.readouterr().out


def test_features_of_a_backbone_with_adapters_are_not_cached(tmp_path: Path) -> None:
    experiment = make_tiny_experiment(*ADAPTED, "loader.cache=features")
    with pytest.raises(ConfigError, match=r"loader.cache: features: backbone.adapters are trained"):
        train_experiment(experiment, tmp_path / "run", "cpu", max_steps=1)


def test_hash_of_a_run_depends_on_adapters_only_if_there_are_some() -> None:
    variants = (PLAIN, ADAPTED, [*ADAPTED, "backbone.adapters.rank=4"])
    hashes = {make_tiny_experiment(*each).compute_config_hash() for each in variants}
    assert len(hashes) == 3
    assert "adapters" not in make_tiny_experiment(*PLAIN).to_semantic_dict()["backbone"]
