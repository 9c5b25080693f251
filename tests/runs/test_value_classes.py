"""Classes of values that a run computes from its training labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from densemtl.create import create_tasks
from densemtl.engine.weights_file import load_weights
from densemtl.factory import build_splits
from densemtl.layers.value_classes import ValueClasses
from densemtl.runs import value_classes
from densemtl.runs.train_run import train_experiment
from densemtl.runs.value_classes import fit_value_classes
from tests.helpers.experiments import make_tiny_experiment

ATRC = ("decoder={name: atrc, width: 8, value_classes: 5}", "train.epochs=1")
CENTERS = "decoder.value_classes.depth.centers"


def test_run_computes_classes_once_and_resumes_bit_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make_tiny_experiment(*ATRC)
    train = build_splits(experiment).train
    depth = np.concatenate([train[index].targets["depth"].flatten() for index in range(len(train))])
    low, high = np.log(np.percentile(depth[np.isfinite(depth)], (0.1, 99.9)))
    expected = np.exp(low + (np.arange(5) + 0.5) / 5 * (high - low))
    train_experiment(experiment, tmp_path / "whole", "cpu")
    whole = load_weights(tmp_path / "whole" / "last" / "model.safetensors").tensors
    np.testing.assert_allclose(whole[CENTERS].flatten().numpy(), expected, rtol=0.02)
    train_experiment(experiment, tmp_path / "parts", "cpu", max_steps=2)
    monkeypatch.setattr(ValueClasses, "fit", None)  # the centers are in the checkpoint
    train_experiment(experiment, tmp_path / "parts", "cpu")
    parts = load_weights(tmp_path / "parts" / "last" / "model.safetensors").tensors
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_run_that_starts_from_another_keeps_its_classes_only_if_they_are_as_many(
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    train_experiment(make_tiny_experiment(*ATRC), source, "cpu", max_steps=1)
    weights = load_weights(source / "last" / "model.safetensors").tensors
    for count in (5, 4):
        decoder = f"decoder={{name: atrc, width: 8, value_classes: {count}}}"
        options = (decoder, f"init_from={source / 'best.safetensors'}", "data.seed=9")
        experiment = make_tiny_experiment(ATRC[1], *options)
        train_experiment(experiment, tmp_path / str(count), "cpu", max_steps=1)
        found = load_weights(tmp_path / str(count) / "last" / "model.safetensors").tensors[CENTERS]
        assert len(found) == count
        assert torch.equal(found, weights[CENTERS]) == (count == 5)
        default = ValueClasses(create_tasks(["depth"])[0], count).centers
        assert not torch.equal(found, default)


def test_classes_do_not_depend_on_the_number_of_ranks(
    make_task: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = build_splits(make_tiny_experiment()).train
    single = ValueClasses(make_task("depth"), 5)
    fit_value_classes(single, train)
    parts: list[object] = []

    def gather(part: object) -> list[object]:
        parts.append(part)
        return [{index: {} for index in range(len(train))}] if len(parts) == 1 else parts

    monkeypatch.setattr(value_classes, "get_world_size", lambda: 2)
    monkeypatch.setattr(value_classes, "all_gather_object", gather)
    for rank in (1, 0):
        monkeypatch.setattr(value_classes, "get_rank", lambda rank=rank: rank)
        joint = ValueClasses(make_task("depth"), 5)
        fit_value_classes(joint, train)
    assert [len(part) for part in parts] == [4, 4]  # type: ignore[arg-type]
    assert torch.equal(joint.centers, single.centers)
