"""Numbers of labeled images and of occurring ids."""

from __future__ import annotations

import torch

from densemtl.metrics.label_counts import LabeledImageCount, OccurringIdCount


def test_counts_images_with_any_valid_pixel():
    valid = torch.zeros(4, 3, 5, dtype=torch.bool)
    valid[1, 2, 4] = valid[3] = True
    metric = LabeledImageCount()
    metric.update(valid[:1])
    assert metric.compute() == 0
    metric.update(valid[1:3])
    metric.update(valid[3:])
    metric.update(valid[:0])
    assert metric.compute() == 2


def test_counts_ids_that_occur_in_any_batch():
    metric = OccurringIdCount()
    metric.update(torch.full((1, 2, 2), 255, dtype=torch.uint8))
    assert metric.compute() == 0
    metric.update(torch.tensor([[[7, 0], [7, 255]]], dtype=torch.uint8))
    metric.update(torch.tensor([[[254]], [[0]]], dtype=torch.uint8))
    assert metric.compute() == 3
