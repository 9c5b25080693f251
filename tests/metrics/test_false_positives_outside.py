"""Metric `false_positives_outside`: counts, sets with labels of one task, errors and subsets."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import densemtl
from densemtl.data.base import DenseDataset
from densemtl.data.batching import EvalDataset
from densemtl.data.loaders import make_eval_loader
from densemtl.engine.loading import load_trained_model
from densemtl.engine.weights_file import save_weights
from densemtl.errors import ConfigError
from densemtl.evaluation.evaluate import evaluate
from densemtl.evaluation.prediction_files import write_prediction
from densemtl.evaluation.prediction_formats import ReadOptions
from densemtl.factory import build_model, build_tasks
from densemtl.metrics.false_positives_outside import FalsePositivesOutside
from densemtl.runs.evaluate_run import evaluate_model, evaluate_predictions
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.types import Predictions, Sample
from tests.helpers.experiments import make_tiny_experiment

ROOMS = {"name": "semseg", "class_names": ["wall", "person", "dog"]}
PARTS = {"name": "human_parts", "class_names": ["background", "head", "leg"]}
OUTSIDE = {"name": "false_positives_outside", "of": "semseg", "classes": ["person"]}
GATED = (
    "tasks=[semseg, {name: human_parts, metrics: "
    "[{name: false_positives_outside, of: semseg, classes: [person]}]}]"
)
DATA = "data={name: synthetic, size: [32, 40], train_images: 4, val_images: 3}"


def make_tasks(**changes: Any) -> list[Task]:
    return densemtl.create_tasks([ROOMS, {**PARTS, "metrics": [{**OUTSIDE, **changes}]}])


def compute_rate(prediction: Tensor, target: Tensor, other: Tensor, classes: set[int]) -> float:
    """Count the pixels one by one."""
    pixels = wrong = 0
    for index in np.ndindex(*target.shape):
        if int(other[index]) not in {*classes, 255} and int(target[index]) in (0, 255):
            pixels += 1
            wrong += float(prediction[index]) > (0.5 if prediction.is_floating_point() else 0)
    return 100 * wrong / pixels


def draw_ids(seed: int, high: int, size: tuple[int, ...] = (3, 9, 8)) -> Tensor:
    """Return ids below `high` and 255."""
    ids = torch.randint(0, high + 1, size, generator=torch.Generator().manual_seed(seed))
    return torch.where(ids == high, 255, ids).to(torch.uint8)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("classes", [(1,), (0, 2)])
def test_rate_equals_a_count_of_pixels(classes: tuple[int, ...], binary: bool) -> None:
    target, other = draw_ids(1, 2 if binary else 3), draw_ids(2, 3)
    generator = torch.Generator().manual_seed(3)
    prediction = torch.rand(3, 9, 8, generator=generator) if binary else draw_ids(7, 3) % 3
    metric = FalsePositivesOutside(of="semseg", classes=classes)
    for part in (slice(0, 1), slice(1, 3)):
        metric.update(prediction[part], target[part], other[part])
    expected = compute_rate(prediction, target, other, set(classes))
    assert 0 < expected < 100
    assert metric.compute_dict() == {"FPR_outside": pytest.approx(expected)}


def test_rate_has_no_value_without_pixels_outside() -> None:
    metric = FalsePositivesOutside(of="semseg", classes=(1,))
    ones = torch.ones(1, 2, 2, dtype=torch.uint8)
    metric.update(ones, ones, ones)  # a person
    metric.update(ones, ones, torch.zeros_like(ones))  # labeled as positive outside
    metric.update(ones, ones, torch.full_like(ones, 255))  # no label of the other task
    metric.update(ones, ones)
    assert math.isnan(metric.compute_dict()["FPR_outside"])


class Sets(DenseDataset):
    """Set `rooms` with labels of semseg only, and `street` with labels of human parts only."""

    def __init__(self) -> None:
        super().__init__("val", ["semseg", "human_parts"])
        self.ids = ("rooms/1", "rooms/2", "street/1")
        self.task_sets = {"semseg": ("rooms",), "human_parts": ("street",)}

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {}

    def __getitem__(self, index: int) -> Sample:
        image = np.zeros((16, 16, 3), np.uint8)
        image[:, : 4 * index] = 1  # the model predicts a part here
        label = np.zeros((16, 16), np.uint8)
        label[:2] = 1
        task = "semseg" if self.ids[index].startswith("rooms") else "human_parts"
        return Sample(image, {task: label}, self.ids[index])


class RedIsPart(nn.Module):
    """Model that predicts the first part where the red channel is 1."""

    def forward(self, image: Tensor) -> Predictions:
        red = image[:, :1].float()
        parts = torch.cat([1 - red, red, 0 * red], dim=1)
        return Predictions({"semseg": torch.zeros_like(image).float(), "human_parts": parts})


def test_images_with_labels_of_the_other_task_only_are_scored() -> None:
    tasks, dataset = make_tasks(), Sets()
    batches = make_eval_loader(EvalDataset(dataset, (16, 16), "pad"), tasks, 2, 0)
    cpu = ExecutionConfig(torch.device("cpu"))
    scores = evaluate(RedIsPart(), batches, tasks, "survey", cpu, task_sets=dataset.task_sets)
    parts = scores["human_parts"]
    assert parts["images"] == 1
    assert parts["FPR_outside"] == pytest.approx(100 * (0 + 4) / (16 + 16))
    assert "FPR_outside" not in scores["semseg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"of": "semsg"}, r"of: no other task 'semsg' with classes, did you mean 'semseg'"),
        ({"of": "human_parts"}, r"of: no other task 'human_parts' with classes"),
        ({"classes": ["persn"]}, r"classes: no class 'persn' in 'semseg', did you mean"),
        ({"classes": [3]}, r"classes: no class 3 in 'semseg', ids are 0 to 2"),
        ({"classes": [0, 1, 2]}, r"classes: are all classes of 'semseg'"),
        ({"classes": []}, r"classes"),
    ],
)
def test_wrong_options_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=r"tasks\.1\.metrics\.0\." + message):
        make_tasks(**changes)


def test_tasks_without_classes_and_unresolved_names_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"tasks\.1\.metrics\.0: .* needs classes, a binary"):
        densemtl.create_tasks([ROOMS, {"name": "depth", "metrics": [OUTSIDE]}])
    with pytest.raises(ConfigError, match="classes: give ids"):
        FalsePositivesOutside(of="semseg", classes=("person",))


def test_subsets_and_baselines_without_the_other_task_lack_the_metric(tmp_path: Path) -> None:
    experiment = make_tiny_experiment(GATED, DATA)
    assert experiment.to_single_task("human_parts").tasks[0].metrics == ()
    file = tmp_path / "best.safetensors"
    save_weights(file, build_model(experiment, build_tasks(experiment)), experiment.to_yaml())
    complete = densemtl.evaluate(file, device="cpu").tasks["human_parts"].metrics
    part = densemtl.evaluate(file, ["tasks=[human_parts]"], device="cpu").tasks["human_parts"]
    assert 0 <= complete.pop("FPR_outside") <= 100
    assert part.metrics == complete


def test_prediction_files_have_the_score_of_the_model(tmp_path: Path) -> None:
    experiment = make_tiny_experiment(GATED, DATA)
    torch.manual_seed(0)
    file = tmp_path / "best.safetensors"
    save_weights(file, build_model(experiment, build_tasks(experiment)), experiment.to_yaml())
    trained = load_trained_model(file, device="cpu")
    save = partial(write_prediction, tmp_path / "maps")
    expected = evaluate_model(trained, "val", on_prediction=save)
    scored = evaluate_predictions(experiment, "val", tmp_path / "maps", ReadOptions())
    for name in ("semseg", "human_parts"):
        assert scored.tasks[name].metrics == expected.tasks[name].metrics
    assert scored.tasks["human_parts"].metrics["FPR_outside"] > 0
