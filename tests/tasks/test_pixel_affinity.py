"""Loss of pixel affinities: against a loop over pairs, similarity of labels, padding, PAP-Net."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import densemtl
from densemtl.tasks.base import Task
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.tasks.pixel_affinity import compare_labels, compute_affinity_loss
from densemtl.types import IGNORE_INDEX, AffinityFeatures, Predictions

SIZE = (8, 12)
"""Size of the targets; features have half of it."""


def make_target(task: Task) -> Tensor:
    """Return labels with few values, a fifth of which are ignored."""
    generator = torch.Generator().manual_seed(0)
    ignored = torch.rand(2, *SIZE, generator=generator) < 0.2
    ids = torch.randint(0, 2, (2, *SIZE), generator=generator)
    if task.name in ("semseg", "edge"):
        return ids.masked_fill(ignored, IGNORE_INDEX).to(torch.uint8)
    values = torch.tensor([[2.0], [3.0]])
    if task.name == "normals":
        values = torch.tensor([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]])
    return values[ids].permute(0, 3, 1, 2).masked_fill(ignored[:, None], torch.nan)


def make_features() -> Tensor:
    torch.manual_seed(1)
    return F.normalize(torch.rand(2, 5, 4, 6), dim=1)


@pytest.mark.parametrize("name", ["semseg", "edge", "depth", "normals"])
def test_loss_equals_a_loop_over_pairs(name: str, make_task: Callable[..., Task]) -> None:
    """Each feature pixel has the label below its center, in row 2 i + 1 and column 2 j + 1."""
    task, features = make_task(name), make_features()
    target = make_target(task)
    labels, valid = target[..., 1::2, 1::2], task.compute_valid_mask(target)[:, 1::2, 1::2]
    terms = []
    for image in range(2):
        points = features[image].flatten(1)
        flat = labels[image].flatten(-2)
        positions = valid[image].flatten().nonzero().flatten().tolist()
        for a, b in permutations(positions, 2):
            affinity = (points[:, a] * points[:, b]).sum()
            same = torch.equal(flat[..., a], flat[..., b])
            terms.append(-(affinity if same else 1 - affinity).log())
    found = compute_affinity_loss(task, AffinityFeatures(features, 100, 3.0), target, SIZE)
    torch.testing.assert_close(found, 3 * torch.stack(terms).mean())


@pytest.mark.parametrize(
    ("name", "labels", "similar"),
    [
        ("depth", [[2.0, 2.09, 2.11]], [[1, 1, 0], [1, 1, 1], [0, 1, 1]]),
        ("regression", [[0.2, 0.24, 0.26]], [[1, 1, 0], [1, 1, 1], [0, 1, 1]]),
        ("normals", [[0, 9, 11]], [[1, 1, 0], [1, 1, 1], [0, 1, 1]]),
    ],
)
def test_similar_values(
    name: str,
    labels: list[list[float]],
    similar: list[list[int]],
    make_task: Callable[..., Task],
) -> None:
    values = torch.tensor(labels)
    if name == "normals":  # angles to the first direction in degrees
        angle = values[0] * math.pi / 180
        values = torch.stack([angle.cos(), angle.sin(), torch.zeros(3)])
    found = compare_labels(make_task(name), values[None])
    assert found.int().tolist() == [similar]


def test_padding_has_no_labels(make_task: Callable[..., Task]) -> None:
    """Features of the padding of an image of 6x10 pixels do not change the loss."""
    task, features = make_task("semseg"), make_features()
    target = make_target(task)[:, :6, :10]
    changed = features.clone()
    changed[:, :, 3], changed[..., 5] = 0.3, 0.3
    losses = [
        compute_affinity_loss(task, AffinityFeatures(each, 100, 1.0), target, SIZE)
        for each in (features, changed)
    ]
    torch.testing.assert_close(*losses)


def test_images_without_labels_have_no_loss(make_task: Callable[..., Task]) -> None:
    task, features = make_task("depth"), make_features().requires_grad_()
    target = torch.full((2, 1, *SIZE), torch.nan)
    loss = compute_affinity_loss(task, AffinityFeatures(features, 100, 1.0), target, SIZE)
    loss.backward()
    assert loss == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_random_pixels_are_compared(make_task: Callable[..., Task]) -> None:
    task, features = make_task("semseg"), make_features()
    target, losses = make_target(task), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(compute_affinity_loss(task, AffinityFeatures(features, 8, 1.0), target, SIZE))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_pap_net_adds_the_loss_to_those_of_its_tasks(
    weight: float, make_task: Callable[..., Task]
) -> None:
    tasks = [make_task("semseg"), make_task("depth")]
    options = {"width": 8, "affinity_width": 4, "affinity_weight": weight}
    model = densemtl.create_model(
        {"name": "pap_net", **options}, backbone="test_resnet", tasks=tasks
    )
    image = torch.randint(0, 256, (2, 3, 60, 64), dtype=torch.uint8)
    predictions = model(image, full_size=False)
    targets = {
        "semseg": torch.randint(0, 2, (2, 60, 64), dtype=torch.uint8),
        "depth": torch.rand(2, 1, 60, 64) + 1,
    }
    plain = Predictions(predictions.logits, predictions.aux_logits, padded_size=(64, 64))
    without = compute_task_losses(tasks, plain, targets).tasks
    torch.manual_seed(0)
    found = compute_task_losses(tasks, predictions, targets).tasks
    torch.manual_seed(0)
    for task in tasks:
        expected = without[task.name]
        if weight:
            features = predictions.affinity_features[task.name]
            target = targets[task.name]
            expected = expected + compute_affinity_loss(task, features, target, (64, 64))
        torch.testing.assert_close(found[task.name], expected)
    assert len(predictions.affinity_features) == (2 if weight else 0)
    assert model(image).affinity_features == {}
