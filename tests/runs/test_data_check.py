"""Check of the data before training, and notes about labels next to the results."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from densemtl.config.experiment import ExperimentConfig
from densemtl.errors import DataError
from densemtl.factory import build_splits
from densemtl.results.results import load_results
from densemtl.results.terminal_tables import make_metrics_table, make_run_table
from densemtl.runs.data_check import (
    check_before_training,
    select_warnings,
    warn_about_random_frozen,
)
from densemtl.runs.record import describe_labels
from densemtl.runs.train_run import train_experiment
from densemtl.tasks.binary import Binary
from densemtl.tasks.classification import Classification
from densemtl.tasks.depth import Depth
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.rendering import render

SEMSEG = Classification("semseg", class_names=["a", "b", "c"])


def make_experiment(folder: Path, val_class: int, *overrides: str) -> ExperimentConfig:
    """Write 4 training images with both classes and 2 validation images with one class."""
    root = folder / "data"
    for name in ("images", "labels", "depth"):
        (root / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(6):
        image = generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        label = np.full((48, 64), val_class, np.uint8)
        if index < 4:
            label[:, :32] = 1 - val_class
        cv2.imwrite(str(root / "images" / f"{index}.png"), image)
        cv2.imwrite(str(root / "labels" / f"{index}.png"), label)
        np.save(root / "depth" / f"{index}.npy", np.linspace(1, 3, 48 * 64).reshape(48, 64))
    (root / "train.txt").write_text("0\n1\n2\n3\n")
    (root / "val.txt").write_text("4\n5\n")
    data = {
        "name": "folder",
        "root": str(root),
        "images": "images",
        "splits": {"train": "train.txt", "val": "val.txt"},
        "labels": {
            "semseg": {"files": "labels", "class_names": ["a", "b"]},
            "depth": {"files": "depth"},
        },
    }
    return make_tiny_experiment(f"data={json.dumps(data)}", *overrides)


def test_suspicious_data_is_printed_and_saved(tmp_path, capsys):
    experiment = make_experiment(tmp_path, 1, "baselines=auto")
    results = train_experiment(experiment, tmp_path / "run", device="cpu", max_steps=1)
    expected = "val: semseg: all pixels have the single class 'b': metrics say little"
    assert f"warning: {expected}\n" in capsys.readouterr().err
    assert results.warnings == [expected]
    assert load_results(tmp_path / "run").warnings == [expected]
    singles = [load_results(folder) for folder in (tmp_path / "baselines").iterdir()]
    warnings = {next(iter(single.tasks)): single.warnings for single in singles}
    assert warnings == {"semseg": [expected], "depth": []}
    assert results.tasks["semseg"].note == "the labels contain a single class"
    assert results.tasks["depth"].note == ""
    for table in (make_run_table(results), make_metrics_table(results)):
        assert "the labels contain a single class" in render(table)


def test_impossible_data_stops_before_training(tmp_path):
    experiment = make_experiment(tmp_path, 1)
    (tmp_path / "data" / "depth" / "2.npy").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"2\.npy"):
        train_experiment(experiment, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_skipped_images_are_a_warning(tmp_path, cache):
    loader = f"loader={{on_corrupt: skip, cache: {cache}, cache_dir: {tmp_path}, num_workers: 0}}"
    experiment = make_experiment(tmp_path, 1, loader, "tasks=[depth]", "decoder.name=single_task")
    (tmp_path / "data" / "depth" / "2.npy").write_bytes(b"broken")
    results = train_experiment(experiment, tmp_path / "run", device="cpu", max_steps=1)
    assert results.warnings == ["train: 1 of 4 images left out: cannot be read"]


@pytest.mark.parametrize(
    ("task", "scores", "note"),
    [
        (SEMSEG, {"images": 0, "occurring_ids": 0}, "all labels are ignored"),
        (SEMSEG, {"images": 2, "occurring_ids": 1}, "the labels contain a single class"),
        (SEMSEG, {"images": 2, "occurring_ids": 2}, "1 of 3 classes do not occur in the labels"),
        (SEMSEG, {"images": 2, "occurring_ids": 3}, ""),
        (SEMSEG, {"images": 2}, ""),
        (Binary("water"), {"images": 1, "occurring_ids": 1}, "the labels contain a single class"),
        (Depth("depth"), {"images": 0}, "all labels are ignored"),
        (Depth("depth"), {"images": 3}, ""),
    ],
)
def test_note_about_labels(task, scores, note):
    assert describe_labels(task, scores) == note


@pytest.mark.parametrize(
    "override", ["loader.cache=none", "loader.cache=disk", "loader.cache=memory"]
)
def test_missing_validation_labels_are_a_warning_printed_once(tmp_path, capsys, override):
    cache = f"loader.cache_dir={tmp_path / 'cache'}"
    experiment = make_experiment(tmp_path, 1, override, cache, "loader.on_corrupt=skip")
    (tmp_path / "data" / "depth" / "4.npy").unlink()
    warnings = check_before_training(experiment, build_splits(experiment))
    line = f"{tmp_path / 'data' / 'depth'}: 1 of the 2 images of 'val' have no depth label"
    (found,) = [each for each in select_warnings(warnings, ["depth"]) if each.startswith(line)]
    assert found not in select_warnings(warnings, ["semseg"])
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count(line) == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["backbone.freeze=all"], "backbone.freeze=all keeps random weights; set"),
        (["backbone.adapters={rank: 2}"], "backbone.adapters keeps random weights; set"),
        (["backbone.adapters={rank: 2}", "backbone.pretrained=true"], None),
        (["backbone.freeze=2"], "backbone.freeze=2 keeps random weights; set"),
        (["backbone.freeze=all", "init_from=RUN", "baselines=auto"], "the single-task baselines"),
        (["backbone.freeze=all", "init_from=RUN"], None),
        (["backbone.freeze=all", "backbone.pretrained=true"], None),
        (["backbone.freeze=all", "backbone.weights=FILE"], None),
        (["backbone.freeze=norm"], None),
        ([], None),
    ],
)
def test_frozen_random_weights_are_a_warning(overrides, expected, capsys):
    warnings = warn_about_random_frozen(make_tiny_experiment(*overrides))
    printed = capsys.readouterr().out
    assert [each.text.startswith(expected) for each in warnings] == [True] * bool(expected)
    assert printed == (f"warning: {warnings[0].text}\n" if expected else "")
