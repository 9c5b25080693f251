"""Classes into which the values of a task are divided, and their loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from densemtl.create import create_tasks
from densemtl.layers.value_classes import ValueClasses, has_value_classes
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.tasks.value_classes import assign_value_classes
from densemtl.types import Predictions

DEPTH, NORMALS, HEIGHT, FLOW, CLASSES = create_tasks(
    [
        "depth",
        "normals",
        {"name": "height", "kind": "regression"},
        {"name": "flow", "kind": "direction", "channels": 2},
        {"name": "semseg", "class_names": ["a", "b"]},
    ]
)


def assign(classes: ValueClasses, values: np.ndarray) -> np.ndarray:
    """Return the classes of values (N, C)."""
    column = torch.from_numpy(values.astype(np.float32)).T[None, :, :, None]
    return assign_value_classes(column, classes.centers, classes.is_logarithmic).flatten().numpy()


def test_default_intervals_of_depth_equal_published_ones() -> None:
    depth = np.linspace(0.3, 14, 500)
    expected = np.floor(40 * np.log(depth / 0.7) / math.log(10 / 0.7)).clip(0, 39)
    found = assign(ValueClasses(DEPTH, 40), depth[:, None])
    at_boundary = np.abs(expected - found) > 0
    assert at_boundary.mean() < 0.01
    assert set(found) == set(range(40))


def test_intervals_are_fitted_to_percentiles() -> None:
    classes = ValueClasses(HEIGHT, 4)
    assert not classes.is_fitted
    classes.fit(np.linspace(-1, 3, 100_001, dtype=np.float32)[:, None])
    assert classes.is_fitted
    torch.testing.assert_close(
        classes.centers[:, 0], torch.tensor([-0.498, 0.501, 1.499, 2.498]), rtol=0, atol=2e-3
    )


def test_clusters_of_directions_are_found() -> None:
    generator = np.random.default_rng(1)
    axes = np.eye(3)
    noisy = axes[generator.integers(3, size=3000)] + 0.05 * generator.normal(size=(3000, 3))
    values = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    classes = ValueClasses(NORMALS, 12)
    classes.fit(values.astype(np.float32))
    centers = classes.centers.double().numpy()
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, atol=1e-6)
    nearest = np.linalg.norm(values[:, None] - centers[None], axis=2).argmin(1)
    np.testing.assert_array_equal(assign(classes, values), nearest)
    angle = np.degrees(np.arccos((values * centers[nearest]).sum(1).clip(-1, 1)))
    assert angle.mean() < 4


@pytest.mark.parametrize(("task", "channels"), [(NORMALS, 3), (FLOW, 2)], ids=["normals", "flow"])
def test_default_directions_are_distinct_unit_vectors(task, channels: int) -> None:
    centers = ValueClasses(task, 40).centers
    assert centers.shape == (40, channels)
    torch.testing.assert_close(centers.norm(dim=1), torch.ones(40))
    distance = torch.cdist(centers, centers) + 9 * torch.eye(40)
    assert distance.min() > 0.1


def test_loss_is_the_cross_entropy_of_valid_pixels_added_to_the_loss_of_the_task() -> None:
    torch.manual_seed(0)
    classes = ValueClasses(DEPTH, 5)
    logits, final = torch.randn(2, 5, 4, 6), torch.rand(2, 1, 8, 12)
    target = torch.rand(2, 1, 8, 12) * 9 + 0.5
    target[:, :, :3] = torch.nan
    outputs = {"depth": final}
    plain = compute_task_losses([DEPTH], Predictions(outputs), {"depth": target})
    predictions = Predictions(outputs, value_class_logits={"depth": classes(logits)})
    found = compute_task_losses([DEPTH], predictions, {"depth": target})
    full = F.interpolate(logits, (8, 12), mode="bilinear", align_corners=False)
    ids = (target[:, 0].nan_to_num(1).log()[:, None] - classes.centers.log()[..., None]).abs()
    ids = ids.argmin(1)
    ids[target[:, 0].isnan()] = -100
    expected = plain.tasks["depth"] + F.cross_entropy(full, ids)
    torch.testing.assert_close(found.tasks["depth"], expected)
    nothing = compute_task_losses([DEPTH], predictions, {"depth": target * torch.nan})
    assert nothing.tasks["depth"] == 0


def test_tasks_with_value_classes() -> None:
    color = create_tasks([{"name": "color", "kind": "regression", "channels": 3}])[0]
    tasks = [DEPTH, NORMALS, HEIGHT, FLOW, CLASSES, color]
    assert [has_value_classes(task) for task in tasks] == [True] * 4 + [False] * 2
