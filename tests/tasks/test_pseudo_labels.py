"""Labels from predictions: confident pixels only, compared with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from densemtl.tasks.binary import Binary
from densemtl.tasks.classification import Classification
from densemtl.tasks.depth import Depth
from densemtl.tasks.normals import Normals
from densemtl.tasks.pseudo_labels import make_pseudo_label
from densemtl.tasks.regression import Regression


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.5, 0.9, 1.0])
def test_uncertain_classes_are_ignored(threshold: float, rng: np.random.Generator) -> None:
    logits = rng.normal(0, 2, (2, 3, 8, 9)).astype(np.float32)
    task = Classification("material", class_names=["a", "b", "c"])
    label = make_pseudo_label(task, torch.from_numpy(logits), threshold)
    exp = np.exp(logits)
    probability = (exp / exp.sum(1, keepdims=True)).max(1)
    expected = np.where(probability >= threshold, logits.argmax(1), 255)
    np.testing.assert_array_equal(label.numpy(), expected)
    assert label.dtype == torch.uint8


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_uncertain_binary_pixels_are_ignored(threshold: float) -> None:
    probability = torch.tensor([0.0, 0.15, 0.3, 0.49, 0.51, 0.7, 0.85, 1.0])
    label = make_pseudo_label(Binary("water"), probability.logit().view(1, 1, 1, 8), threshold)
    certain = (probability < 1 - threshold) | (probability > threshold)
    expected = torch.where(certain, (probability > 0.5).long(), 255).to(torch.uint8)
    assert label.shape == (1, 1, 8)
    assert torch.equal(label[0, 0], expected)
    assert int((label != 255).sum()) == {0.5: 8, 0.8: 4}[threshold]


def test_values_that_no_label_has_are_ignored() -> None:
    values = torch.tensor([2.5, -0.1, 0.0, torch.inf, torch.nan]).view(1, 1, 1, 5)
    depth = make_pseudo_label(Depth("depth"), values)
    assert depth[0, 0, 0].isnan().tolist() == [False, True, True, True, True]
    height = make_pseudo_label(Regression("height"), values)  # may be below the ground
    assert height[0, 0, 0].isnan().tolist() == [False, False, False, True, True]
    assert height[0, 0, 0, 0] == depth[0, 0, 0, 0] == 2.5


def test_vectors_have_length_one_or_no_valid_component() -> None:
    logits = torch.tensor([[0.0, 3.0, 4.0], [1.0, torch.nan, 1.0]]).T.view(1, 3, 1, 2)
    label = make_pseudo_label(Normals("normals"), logits)
    assert torch.allclose(label[0, :, 0, 0], torch.tensor([0.0, 0.6, 0.8]))
    assert label[0, :, 0, 1].isnan().all()
