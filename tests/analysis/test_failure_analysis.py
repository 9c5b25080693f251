"""Tests of the failure analysis and its report, on a tiny run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from densemtl.analysis.failure_analysis import Diagnosis, diagnose
from densemtl.engine.loading import TrainedModel, load_trained_model
from densemtl.runs.train_run import train_experiment
from densemtl.tasks.depth import Depth
from densemtl.tasks.edge import Edge
from tests.helpers.experiments import make_tiny_experiment
from tools.diagnose import main

TASKS = ["semseg", "depth", "edge"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_experiment(make_tiny_experiment(f"tasks={TASKS}", "train.epochs=1"), folder, "cpu")
    return folder


@pytest.fixture(scope="module")
def loaded(trained: Path) -> TrainedModel:
    return load_trained_model(trained, device="cpu")


def test_image_scores_are_consistent_with_scores_of_the_split(loaded: TrainedModel) -> None:
    diagnosis = diagnose(loaded, "val")
    assert set(diagnosis.image_scores) == set(TASKS)
    assert all(len(scores) == 4 for scores in diagnosis.image_scores.values())
    squares = [score**2 for score in diagnosis.image_scores["depth"].values()]
    split_scores = diagnosis.scores["depth"]
    assert np.sqrt(np.mean(squares)) == pytest.approx(split_scores["rmse"], rel=1e-4)
    assert np.sqrt(squares).mean() == pytest.approx(split_scores["rmse_per_image"], rel=1e-4)
    assert set(diagnosis.calibration) == {"edge"}


def test_list_worst_images_respects_the_direction_of_the_metric() -> None:
    scores = {"a": 1.0, "b": 3.0, "c": 2.0}
    diagnosis = Diagnosis(image_scores={"depth": scores, "edge": scores})
    assert diagnosis.list_worst_images(Depth("depth"), 2) == ["b", "c"]
    assert diagnosis.list_worst_images(Edge("edge"), 2) == ["a", "c"]


def test_class_iou_lists_absent_classes_last() -> None:
    iou = {"mIoU": 30.0, "IoU/wall": 50.0, "IoU/lamp": float("nan"), "IoU/chair": 10.0}
    assert list(Diagnosis(scores={"semseg": iou}).get_class_iou("semseg")) == [
        "chair",
        "wall",
        "lamp",
    ]


@pytest.mark.usefixtures("drawn_figures")
def test_tool_writes_tables_and_figures(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(trained), "--worst", "2", "--device", "cpu"])
    folder = trained / "diagnosis"
    for name in ("worst_semseg", "worst_depth", "worst_edge", "calibration"):
        picture = cv2.imread(str(folder / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5
    with (folder / "images.csv").open() as handle:
        header, *rows = csv.reader(handle)
    assert header == ["image", *TASKS]
    assert len(rows) == 4
    content = json.loads((folder / "diagnosis.json").read_text())
    assert 0 <= content["calibration"]["edge"]["ECE"] <= 100
    assert (folder / "classes_semseg.csv").read_text().startswith("class,IoU\n")
    assert "worst images: " in capsys.readouterr().out
