"""Perfect scores of a model that predicts the labels, at any input size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.data.base import DenseDataset
from densemtl.data.batching import EvalDataset
from densemtl.data.derived_labels import derive_region_edges
from densemtl.data.loaders import make_eval_loader
from densemtl.evaluation.evaluate import evaluate
from densemtl.evaluation.final_metrics import evaluate_with_final_metrics
from densemtl.ops.layouts import to_tensor
from densemtl.runtime.execution import ExecutionConfig
from densemtl.transforms.geometry import pad_to_size
from densemtl.types import IGNORE_INDEX, Predictions, Sample

CPU = ExecutionConfig(torch.device("cpu"))
NAMES = ["semseg", "human_parts", "depth", "normals", "saliency"]
MIXED = [(37, 53), (37, 53), (53, 37), (41, 61), (1, 61)]
ALIKE = [(37, 53)] * 4
LACKING = ("depth", "human_parts", "edge")
"""Tasks for which the second image has no label."""


class NumberedImages(DenseDataset):
    """Images that contain only their index, with random labels; one image lacks some labels."""

    def __init__(self, tasks, sizes, draw_label) -> None:
        super().__init__("val", [task.name for task in tasks])
        self.ids = [str(index) for index in range(len(sizes))]
        self.samples = []
        for index, size in enumerate(sizes):
            rng = np.random.default_rng(index)
            targets = {task.name: draw_label(task, size, rng) for task in tasks}
            if index == 1:
                targets = {name: each for name, each in targets.items() if name not in LACKING}
            image = np.full((*size, 3), index, np.uint8)
            self.samples.append(Sample(image, targets, self.ids[index]))

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {}

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class Oracle(nn.Module):
    """Model that returns logits of the labels of an image, and noise at ignored pixels."""

    def __init__(self, dataset, tasks, fit) -> None:
        super().__init__()
        self.dataset, self.tasks, self.fit = dataset, tasks, fit

    def forward(self, image: Tensor) -> Predictions:
        height, width = image.shape[-2:]
        numbers = image[:, 0, height // 2, width // 2].tolist()
        samples = [self.dataset[number] for number in numbers]
        final = {
            task.name: torch.cat([self.look_up(task, each, (height, width)) for each in samples])
            for task in self.tasks
        }
        return Predictions(final)

    def look_up(self, task, sample, size) -> Tensor:
        output = 9 * torch.randn(1, task.channels, *sample.size)
        if task.name in sample.targets:
            target = to_tensor(sample.targets[task.name][None])
            valid = task.compute_valid_mask(target)[:, None]
            output = torch.where(valid, logits(task, target), output)
        if self.fit == "resize":
            return F.interpolate(output, size=size, mode="nearest-exact")
        padded = 9 * torch.randn(1, task.channels, *size)
        top, left, height, width = pad_to_size(sample.size, size)[1].box
        padded[..., top : top + height, left : left + width] = output
        return padded


def logits(task, target) -> Tensor:
    """Return logits that decode to the target."""
    if task.name in ("semseg", "human_parts"):
        ids = torch.arange(task.channels).view(1, -1, 1, 1)
        return 30.0 * (target[:, None] == ids)
    if task.name in ("saliency", "edge"):
        return 60.0 * target[:, None] - 30
    return 3.7 * target if task.name == "normals" else target


def outlines(task, size, rng):
    """Draw thin closed lines and a block of ignored pixels.

    There are no lines at the border, where `modern` predicts none.
    """
    blurred = cv2.GaussianBlur(rng.random(size), (0, 0), 3)
    inside = np.zeros(size, bool)
    inside[2:-2, 2:-2] = blurred[2:-2, 2:-2] > np.median(blurred)
    inside[: size[0] // 3 + 3, : size[1] // 3 + 3] = False
    label = derive_region_edges(inside.astype(np.uint8))
    label[: size[0] // 3, : size[1] // 3] = IGNORE_INDEX
    return label


FITS = pytest.mark.parametrize(
    ("sizes", "fit", "size"),
    [
        (MIXED, "pad", (61, 75)),
        (ALIKE, "pad", (37, 53)),
        (ALIKE, "resize", (37, 53)),
        (ALIKE, "resize", (111, 159)),
    ],
    ids=["padded", "as it is", "same size", "three times the size"],
)


@pytest.mark.parametrize("protocol", ["survey", "modern"])
@FITS
def test_perfect_predictions_have_perfect_scores(make_task, draw_label, protocol, sizes, fit, size):
    """Enlarging by an odd factor and back is exact, since the centers of pixels coincide."""
    tasks = [make_task(name) for name in NAMES]
    dataset = NumberedImages(tasks, sizes, draw_label)
    batches = make_eval_loader(EvalDataset(dataset, size, fit), tasks, batch_size=3, num_workers=0)
    scores = evaluate(Oracle(dataset, tasks, fit), batches, tasks, protocol, CPU)
    for name in ("semseg", "human_parts"):
        assert scores[name]["mIoU"] == scores[name]["pixel_accuracy"] == 100
    assert scores["depth"]["rmse"] == pytest.approx(0, abs=1e-6)
    assert scores["normals"]["mErr"] < 0.02
    saliency = {"maxF": 100, "mIoU": 100, "images": len(sizes), "occurring_ids": 2}
    assert scores["saliency"] == saliency
    assert scores["depth"]["images"] == scores["human_parts"]["images"] == len(sizes) - 1


@pytest.mark.parametrize("protocol", ["survey", "modern"])
@FITS
def test_perfect_edges_have_perfect_scores(make_task, protocol, sizes, fit, size):
    """Lines that meet the border are tested in `tests/metrics/boundary/test_metric.py`."""
    tasks, sizes = [make_task("edge")], [each for each in sizes if min(each) > 9]
    dataset = NumberedImages(tasks, sizes, outlines)
    batches = make_eval_loader(EvalDataset(dataset, size, fit), tasks, batch_size=3, num_workers=0)
    oracle = Oracle(dataset, tasks, fit)
    scores = evaluate_with_final_metrics(oracle, batches, tasks, protocol, CPU)["edge"]
    assert scores["odsF"] == scores["oisF"] == scores["pixel_maxF"] == 100
    assert scores["images"] == len(sizes) - 1
