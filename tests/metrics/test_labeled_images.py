"""Number of labeled images."""

from __future__ import annotations

import torch

from densemtl.metrics.labeled_images import LabelledImageCount


def test_counts_images_with_any_valid_pixel():
    valid = torch.zeros(4, 3, 5, dtype=torch.bool)
    valid[1, 2, 4] = valid[3] = True
    metric = LabelledImageCount()
    metric.update(valid[:1])
    assert metric.compute() == 0
    metric.update(valid[1:3])
    metric.update(valid[3:])
    metric.update(valid[:0])
    assert metric.compute() == 2
