"""Evaluation: every image once, at its original size, padding and void never counted."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from densemtl.data.base import DenseDataset
from densemtl.data.batching import EvalDataset, make_eval_loader
from densemtl.evaluation.evaluate import evaluate
from densemtl.factory import build_model
from densemtl.runtime.execution import ExecutionConfig
from densemtl.types import Predictions, Sample
from tests.helpers.experiments import make_tiny_experiment

CPU = ExecutionConfig(torch.device("cpu"))
SIZES = [(12, 16), (8, 16), (8, 16), (12, 10), (12, 16)]


class Painted(DenseDataset):
    """Images whose red channel is the class id times 100 and whose green is ten times the depth."""

    def __init__(self) -> None:
        super().__init__("val", ["semseg", "depth"])
        self.ids = [str(index) for index in range(len(SIZES))]

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {}

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        semseg = rng.integers(0, 3, SIZES[index]).astype(np.uint8)
        metres = rng.integers(1, 9, SIZES[index])
        image = np.stack([semseg * 100, metres * 10, 0 * semseg], -1).astype(np.uint8)
        depth = metres.astype(np.float32)
        semseg[rng.random(SIZES[index]) < 0.2] = 255
        depth[rng.random(SIZES[index]) < 0.2] = np.nan
        targets = {"semseg": semseg} | ({"depth": depth} if index != 1 else {})
        return Sample(image, targets, self.ids[index])


class Reader(nn.Module):
    """Reads class and depth off the image's colours; off by a known error in metres."""

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


def test_a_perfect_model_is_perfect_at_original_size(tasks):
    scores = run(tasks)
    assert scores["semseg"]["mIoU"] == 100
    assert scores["depth"]["rmse"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_batch_size_does_not_matter(tasks, fit):
    """Rounding apart; batches mix images of several sizes, and one that has no depth."""
    one, other = run(tasks, fit, 1, 0.25), run(tasks, fit, 5, 0.25)
    for task, scores in one.items():
        assert other[task] == pytest.approx(scores, rel=1e-6)


def test_the_number_of_workers_does_not_matter(tasks):
    assert run(tasks, error=0.25, workers=2) == run(tasks, error=0.25)


def test_a_known_error_is_what_is_reported(tasks):
    assert run(tasks, error=0.5)["depth"]["rmse"] == pytest.approx(0.5, rel=1e-5)


def test_resized_images_are_scored_at_their_own_size(tasks):
    """Twice the size and back: each pixel is the mean of its four, dominated by itself."""
    scores = run(tasks[:1], "resize", 5, size=(24, 32))
    assert scores["semseg"]["mIoU"] > 60


def test_the_model_is_evaluated_without_gradient_and_in_evaluation_mode(tasks):
    model = Reader().train()
    batches = make_eval_loader(EvalDataset(Painted(), (12, 16), "pad"), tasks, 5, 0)
    evaluate(model, batches, tasks, "survey", CPU)
    assert model.modes == [False]


def test_every_prediction_can_be_kept(tasks):
    """Each image once, at its own size, in a sample's layout; also the one that has no depth."""
    kept: dict[tuple[str, str], np.ndarray] = {}
    batches = make_eval_loader(EvalDataset(Painted(), (12, 16), "pad"), tasks, 3, 0)

    def keep(task, name, prediction) -> None:
        assert (task.name, name) not in kept
        kept[task.name, name] = prediction

    evaluate(Reader(), batches, tasks, "modern", CPU, keep)
    assert {key: prediction.shape for key, prediction in kept.items()} == {
        (task.name, str(index)): size for task in tasks for index, size in enumerate(SIZES)
    }
    depth = Painted()[4].targets["depth"]
    known = np.isfinite(depth)
    np.testing.assert_allclose(kept["depth", "4"][known], depth[known], rtol=1e-6)


class Foreign(nn.Module):
    """A network that knows nothing of logits at feature resolution."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> Predictions:
        return self.network(image)


@pytest.mark.parametrize(("fit", "size"), [("pad", (33, 47)), ("resize", (40, 50))])
def test_own_networks_are_scored_as_foreign_ones_are(tasks, fit, size):
    """From logits at feature resolution, or of the input's size: equal but for rounding."""
    config = make_tiny_experiment("tasks=[{name: semseg, class_names: [floor, wall, door]}, depth]")
    model = build_model(config, tasks)
    found: list[dict[tuple[str, str], np.ndarray]] = []
    for network in (model, Foreign(model)):
        kept: dict[tuple[str, str], np.ndarray] = {}
        batches = make_eval_loader(EvalDataset(Painted(), size, fit), tasks, 3, 0)
        keep = partial(lambda kept, task, name, map: kept.update({(task.name, name): map}), kept)
        evaluate(network, batches, tasks, "modern", CPU, keep)
        found.append(kept)
    for key, expected in found[1].items():
        if key[0] == "depth":
            np.testing.assert_allclose(found[0][key], expected, rtol=1e-4, atol=1e-5)
        else:
            assert np.mean(found[0][key] != expected) < 0.01
