"""Metrics of tasks that have labels in some of several sets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from densemtl.data.base import DenseDataset
from densemtl.data.batching import EvalDataset
from densemtl.data.loaders import make_eval_loader
from densemtl.evaluation.evaluate import evaluate
from densemtl.evaluation.final_metrics import evaluate_with_final_metrics
from densemtl.evaluation.scores import average_sets
from densemtl.evaluation.task_metrics import TaskMetrics
from densemtl.runtime.execution import ExecutionConfig
from densemtl.types import Predictions, Sample

CPU = ExecutionConfig(torch.device("cpu"))
ERRORS = {"a/1": 1.0, "a/2": 3.0, "a/3": 5.0, "b/1": 20.0, "c/1": 0.0}
"""{image id: error of the predicted depth in meters}; images of the set c have no depth."""


class Sets(DenseDataset):
    """Images whose red channel is the error of the predicted depth."""

    def __init__(self, names: tuple[str, ...] = tuple(ERRORS)) -> None:
        super().__init__("val", ["depth", "edge"])
        self.ids = names
        self.task_sets = {"depth": ("a", "b"), "edge": ("c",)}

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {}

    def __getitem__(self, index: int) -> Sample:
        name = self.ids[index]
        image = np.full((16, 16, 3), ERRORS[name], np.uint8)
        if name.startswith("c/"):
            edge = np.zeros((16, 16), np.uint8)
            edge[8] = 1
            return Sample(image, {"edge": edge}, name)
        return Sample(image, {"depth": np.full((16, 16), 2, np.float32)}, name)


class Wrong(nn.Module):
    """Model whose depth is wrong by the red channel, and whose edges are everywhere."""

    def forward(self, image: torch.Tensor) -> Predictions:
        red = image[:, :1].float()
        return Predictions({"depth": 2 + red, "edge": torch.ones_like(red)})


@pytest.fixture
def tasks(make_task):
    return [make_task("depth"), make_task("edge")]


def score(tasks, dataset: Sets, **options):
    batches = make_eval_loader(EvalDataset(dataset, (16, 16), "pad"), tasks, 2, 0)
    return evaluate(Wrong(), batches, tasks, "survey", CPU, task_sets=dataset.task_sets, **options)


def test_metrics_of_a_task_are_reported_per_set_and_averaged_over_sets(tasks):
    depth = score(tasks, Sets())["depth"]
    assert depth["a/rmse"] == pytest.approx(math.sqrt(35 / 3))
    assert depth["b/rmse"] == pytest.approx(20)
    assert depth["rmse"] == pytest.approx((math.sqrt(35 / 3) + 20) / 2)
    assert (depth["images"], depth["a/images"], depth["b/images"]) == (4, 3, 1)


def test_metrics_of_a_task_of_one_set_have_plain_names(tasks):
    edge = score(tasks, Sets())["edge"]
    assert edge["images"] == 1
    assert not any("/" in name for name in edge)
    assert edge["occurring_ids"] == 2


def test_images_of_other_sets_are_not_scored(tasks):
    class Counting(TaskMetrics):
        updates = 0

        def update(self, *args):
            self.updates += 1
            super().update(*args)

    dataset = Sets()
    metrics = Counting(tasks, "survey", None, dataset.task_sets)
    seen = []
    score(tasks, dataset, metrics=metrics, on_prediction=lambda task, name, _: seen.append(name))
    assert metrics.updates == 5
    assert len(seen) == 10  # predictions of all tasks are still saved


def test_final_metrics_are_computed_per_set(tasks):
    dataset = Sets()
    dataset.task_sets = {"depth": ("a", "b"), "edge": ("b", "c")}
    batches = make_eval_loader(EvalDataset(dataset, (16, 16), "pad"), tasks, 2, 0)
    scores = evaluate_with_final_metrics(
        Wrong(), batches, tasks, "survey", CPU, task_sets=dataset.task_sets
    )
    assert scores["depth"] == score(tasks, Sets())["depth"]
    edge = scores["edge"]
    assert edge["c/odsF"] > 0
    assert math.isnan(edge["b/odsF"])
    assert math.isnan(edge["odsF"])  # a set without labels must not look like a result


def test_set_without_images_on_a_rank_has_no_value_and_no_warning(tasks, recwarn):
    depth = score(tasks, Sets(("a/1", "c/1")))["depth"]
    assert depth["a/rmse"] == pytest.approx(1)
    assert math.isnan(depth["b/rmse"])
    assert math.isnan(depth["rmse"])
    assert not [warning for warning in recwarn if "compute" in str(warning.message)]


def test_one_set_is_scored_as_before(tasks):
    plain = Sets(("a/1", "a/2", "b/1"))
    plain.task_sets = {}
    batches = make_eval_loader(EvalDataset(plain, (16, 16), "pad"), tasks[:1], 2, 0)
    depth = evaluate(Wrong(), batches, tasks[:1], "survey", CPU)["depth"]
    assert depth["rmse"] == pytest.approx(math.sqrt((1 + 9 + 400) / 3))


def test_mean_over_sets():
    sets = {"a": {"x": 1.0, "images": 2.0}, "b": {"x": 3.0, "images": 40.0}}
    assert average_sets(sets) == {
        "x": 2.0,
        "images": 42.0,
        "a/x": 1.0,
        "a/images": 2.0,
        "b/x": 3.0,
        "b/images": 40.0,
    }
