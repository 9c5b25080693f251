"""Cached kernels of the meta device return the same tensors as those of PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.models.meta_kernels import CachedMetaKernels


def describe(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.untyped_storage().nbytes()


def run(norm: nn.Module, image: Tensor) -> list[Tensor]:
    """Run operations of one and of several outputs, views, and operations in place."""
    normalized = norm(image)
    resized = F.interpolate(normalized, (9, 7), mode="bilinear")
    largest, places = resized.max(1)
    halves = normalized.to(memory_format=torch.channels_last).chunk(2)
    sums = normalized.half() + 1, (image > 0) + 1, image.sum((2, 3)), image * image[:1, :, :1, :1]
    return [
        normalized,
        resized,
        largest,
        places,
        *halves,
        *sums,
        normalized.relu_(),
        places.add_(2),
    ]


def test_repeated_operations_have_the_layout_of_the_first() -> None:
    norm = nn.BatchNorm2d(3, device="meta")
    for image in (torch.empty(2, 3, 5, 5, device="meta"), torch.empty(4, 3, 8, 6, device="meta")):
        expected = [*map(describe, run(norm, image))]
        with CachedMetaKernels():
            first, second = run(norm, image), run(norm, image)
        for results in (first, second):
            assert [*map(describe, results)] == expected
            assert results[0].grad_fn is not None
            assert results[-2] is results[0]
        storages = [tensor.untyped_storage()._cdata for tensor in (first[0], second[0])]
        assert storages[0] != storages[1]


def test_tensors_with_values_are_computed() -> None:
    values = torch.tensor([1.0, 2.0])
    with CachedMetaKernels():
        assert [(values + number).tolist() for number in (1, 2)] == [[2, 3], [3, 4]]
        assert (values.sum() + values).tolist() == [4, 5]
