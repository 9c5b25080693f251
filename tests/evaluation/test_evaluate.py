"""Evaluation of each image at its original size, without padding and ignored pixels."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from densemtl.data.base import DenseDataset
from densemtl.data.batching import EvalDataset
from densemtl.data.loaders import make_eval_loader
from densemtl.evaluation.evaluate import evaluate
from densemtl.evaluation.task_metrics import TaskMetrics
from densemtl.factory import build_model, build_tasks
from densemtl.runtime.execution import ExecutionConfig
from densemtl.types import Predictions, Sample
from tests.helpers.experiments import make_tiny_experiment

CPU = ExecutionConfig(torch.device("cpu"))
SIZES = [(12, 16), (8, 16), (8, 16), (12, 10), (12, 16)]


class Painted(DenseDataset):
    """Images with 100 times the class id in the red channel and 10 times the depth in the green."""

    def __init__(self) -> None:
        super().__init__("val", ["semseg", "depth"])
        self.ids = [str(index) for index in range(len(SIZES))]

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {}

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        semseg = rng.integers(0, 3, SIZES[index]).astype(np.uint8)
        meters = rng.integers(1, 9, SIZES[index])
        image = np.stack([semseg * 100, meters * 10, 0 * semseg], -1).astype(np.uint8)
        depth = meters.astype(np.float32)
        semseg[rng.random(SIZES[index]) < 0.2] = 255
        depth[rng.random(SIZES[index]) < 0.2] = np.nan
        targets = {"semseg": semseg} | ({"depth": depth} if index != 1 else {})
        return Sample(image, targets, self.ids[index])


class Reader(nn.Module):
    """Model that reads class and depth from the colors of the image, with a known depth error."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.error = error
        self.modes: list[bool] = []

    def forward(self, image: torch.Tensor) -> Predictions:
        self.modes.append(self.training)
        classes = torch.arange(3).view(1, 3, 1, 1) * 100.0
        semseg = -(image[:, :1].float() - classes).abs()
        return Predictions({"semseg": semseg, "depth": image[:, 1:2] / 10 + self.error})


@pytest.fixture
def tasks(make_task):
    return [make_task("semseg"), make_task("depth")]


def run(tasks, fit="pad", batch_size=3, error=0.0, size=(12, 16), workers=0):
    batches = make_eval_loader(EvalDataset(Painted(), size, fit), tasks, batch_size, workers)
    return evaluate(Reader(error), batches, tasks, "modern", CPU)


def test_perfect_model_has_perfect_scores_at_original_size(tasks):
    scores = run(tasks)
    assert scores["semseg"]["mIoU"] == 100
    assert scores["depth"]["rmse"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_batch_size_does_not_change_scores(tasks, fit):
    """Equal except for rounding; batches mix images of several sizes and one without depth."""
    single_images, batches = run(tasks, fit, 1, 0.25), run(tasks, fit, 5, 0.25)
    for task, scores in single_images.items():
        assert batches[task] == pytest.approx(scores, rel=1e-6)


def test_number_of_workers_does_not_change_scores(tasks):
    assert run(tasks, error=0.25, workers=2) == run(tasks, error=0.25)


def test_rmse_equals_known_error(tasks):
    assert run(tasks, error=0.5)["depth"]["rmse"] == pytest.approx(0.5, rel=1e-5)


def test_resized_images_are_scored_at_original_size(tasks):
    """Images are enlarged by 2 and back, so that each pixel has the largest weight in its value."""
    scores = run(tasks[:1], "resize", 5, size=(24, 32))
    assert scores["semseg"]["mIoU"] > 60


def test_model_is_switched_to_evaluation_mode(tasks):
    model = Reader().train()
    batches = make_eval_loader(EvalDataset(Painted(), (12, 16), "pad"), tasks, 5, 0)
    evaluate(model, batches, tasks, "survey", CPU)
    assert model.modes == [False]


def test_callback_gets_each_prediction_once(tasks):
    """Predictions have the original size and the layout of `Sample`, also without label."""
    predictions: dict[tuple[str, str], np.ndarray] = {}
    batches = make_eval_loader(EvalDataset(Painted(), (12, 16), "pad"), tasks, 3, 0)

    def store(task, name, prediction) -> None:
        assert (task.name, name) not in predictions
        predictions[task.name, name] = prediction

    evaluate(Reader(), batches, tasks, "modern", CPU, store)
    assert {key: prediction.shape for key, prediction in predictions.items()} == {
        (task.name, str(index)): size for task in tasks for index, size in enumerate(SIZES)
    }
    depth = Painted()[4].targets["depth"]
    valid = np.isfinite(depth)
    np.testing.assert_allclose(predictions["depth", "4"][valid], depth[valid], rtol=1e-6)


class Foreign(nn.Module):
    """Wrapper that hides that a model can return logits at feature resolution."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> Predictions:
        return self.network(image)


@pytest.mark.parametrize(("fit", "size"), [("pad", (33, 47)), ("resize", (40, 50))])
def test_low_res_and_full_size_logits_have_equal_predictions(tasks, fit, size):
    """Logits at feature resolution and at input size are decoded equally except for rounding."""
    config = make_tiny_experiment("tasks=[{name: semseg, class_names: [floor, wall, door]}, depth]")
    model = build_model(config, tasks)
    results: list[dict[tuple[str, str], np.ndarray]] = []
    for network in (model, Foreign(model)):
        maps: dict[tuple[str, str], np.ndarray] = {}
        batches = make_eval_loader(EvalDataset(Painted(), size, fit), tasks, 3, 0)
        store = partial(lambda maps, task, name, map: maps.update({(task.name, name): map}), maps)
        evaluate(network, batches, tasks, "modern", CPU, store)
        results.append(maps)
    for key, expected in results[1].items():
        if key[0] == "depth":
            np.testing.assert_allclose(results[0][key], expected, rtol=1e-4, atol=1e-5)
        else:
            assert np.mean(results[0][key] != expected) < 0.01


def test_metrics_of_apple_gpus_are_computed_on_the_cpu_in_float64() -> None:
    task = build_tasks(make_tiny_experiment("tasks=[depth]"))[0]
    metrics = TaskMetrics([task], "survey", torch.device("mps"))
    metrics.update(task, torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), 2.0))
    assert metrics.compute()["depth"]["rmse"] == 1.0
