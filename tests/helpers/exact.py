"""Comparisons of two ways to compute one thing, in double precision.

In single precision the two differ by rounding that depends on the CPU: other instructions, other
kernels, and an untrained network enlarges the difference. In double precision all that stays
below `TOLERANCE`, and a real difference does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-9
"""Largest difference that is rounding in double precision, relative to the largest value."""

SINGLE_TOLERANCE = 8 * torch.finfo(torch.float32).eps
"""The same where a part is computed in float32 by design: the softmax of gates, losses."""


def assert_same(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Check that two maps are equal but for rounding, relative to the largest value expected."""
    assert_all_same([found], [expected], tolerance)


def assert_all_same(
    found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = TOLERANCE
) -> None:
    """Check that tensors are equal but for rounding, relative to the largest value of them all.

    For gradients, some of which may be nothing but rounding (of a bias before a normalization).
    Integers, such as the number of batches that a normalization has seen, must be equal.
    """
    assert len(found) == len(expected) > 0
    largest = max(each.abs().max().item() for each in expected if each.is_floating_point())
    for one, other in zip(found, expected, strict=True):
        if not other.is_floating_point():
            assert torch.equal(one, other)
            continue
        assert one.dtype == other.dtype == torch.float64
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * largest)
