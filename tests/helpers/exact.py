"""Comparisons of two computations of the same quantity in double precision.

In single precision, rounding differences depend on the instructions and kernels of the CPU, and an
untrained network amplifies them. In double precision they stay below `TOLERANCE`, whereas real
differences do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-9
"""Largest rounding difference in double precision, relative to the largest value."""

SINGLE_TOLERANCE = 8 * torch.finfo(torch.float32).eps
"""Likewise if a part is computed in float32 by design, such as the softmax of gates or losses."""


def assert_same(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Check that two tensors are equal up to rounding, relative to the largest expected value."""
    assert_all_same([found], [expected], tolerance)


def assert_all_same(
    found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = TOLERANCE
) -> None:
    """Check that tensors are equal up to rounding, relative to the largest value of all tensors.

    This suits gradients, some of which may consist of rounding errors only (of a bias before a
    normalization). Integers, such as the number of batches in a normalization, must be equal.
    """
    assert len(found) == len(expected) > 0
    largest = max(tensor.abs().max().item() for tensor in expected if tensor.is_floating_point())
    for actual, reference in zip(found, expected, strict=True):
        if not reference.is_floating_point():
            assert torch.equal(actual, reference)
            continue
        assert actual.dtype == reference.dtype == torch.float64
        torch.testing.assert_close(actual, reference, rtol=0, atol=tolerance * largest)
