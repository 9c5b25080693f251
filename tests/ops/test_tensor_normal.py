"""Tests of the tensor-normal distribution against dense Kronecker products in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from densemtl.ops.tensor_normal import to_correlation, update_factor, whiten

SHAPE = (4, 3, 10)
"""Each axis is shorter than the product of the others, so that all estimates can be inverted."""


def make_weights(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).double()


def make_factors() -> list[Tensor]:
    """Return Cholesky factors of random covariances."""
    generator = torch.Generator().manual_seed(1)
    roots = [torch.randn(n, n, generator=generator).double() for n in SHAPE]
    return [torch.linalg.cholesky(root @ root.mT + torch.eye(len(root))) for root in roots]


def to_dense(factors: list[Tensor]) -> Tensor:
    """Return the covariance of the flat weights, shape (T O D, T O D)."""
    task, output, inputs = (factor @ factor.mT for factor in factors)
    return torch.kron(torch.kron(task, output), inputs)


@pytest.mark.parametrize("identity", [(), (0,), (1, 2)])
def test_quadratic_form_is_that_of_the_dense_covariance(identity: tuple[int, ...]) -> None:
    weights, factors = make_weights(), make_factors()
    dense = [torch.eye(n).double() if i in identity else factors[i] for i, n in enumerate(SHAPE)]
    flat = weights.flatten()
    expected = flat @ torch.linalg.inv(to_dense(dense)) @ flat
    sparse = [None if axis in identity else factor for axis, factor in enumerate(factors)]
    assert whiten(weights, sparse).square().sum() == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("axis", range(3))
def test_update_is_the_estimate_with_the_dense_inverse(axis: int) -> None:
    weights, factors = make_weights(), make_factors()
    others = [factor @ factor.mT for index, factor in enumerate(factors) if index != axis]
    rows = weights.movedim(axis, 0).flatten(1)
    size, count = SHAPE[axis], weights.numel()
    expected = size / count * rows @ torch.linalg.inv(torch.kron(*others)) @ rows.mT
    factor = update_factor(weights, factors, axis)
    torch.testing.assert_close(factor @ factor.mT, expected, rtol=1e-9, atol=1e-12)


def test_updates_never_decrease_the_likelihood() -> None:
    weights = make_weights()
    factors = [torch.eye(n).double() for n in SHAPE]
    flat, values = weights.flatten(), []
    for axis in (0, 1, 2) * 3:
        factors[axis] = update_factor(weights, factors, axis)
        covariance = to_dense(factors)
        values.append(float(flat @ torch.linalg.inv(covariance) @ flat + covariance.logdet()))
    assert all(later <= earlier + 1e-8 for earlier, later in pairwise(values))
    assert values[-1] < values[0] - 1


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_proportional_tasks_have_full_correlation(scale: float) -> None:
    weights = make_weights()[:2].clone()
    weights[1] = scale * weights[0]
    correlations = to_correlation(update_factor(weights, [None] * 3, 0, ridge=1e-6))
    expected = torch.tensor([[1.0, scale], [scale, 1.0]]).double()
    torch.testing.assert_close(correlations, expected, rtol=0, atol=1e-5)


def test_weights_of_zero_are_unrelated() -> None:
    factor = update_factor(torch.zeros(2, 3, 4), [None] * 3, 0, ridge=1e-3)
    assert torch.equal(to_correlation(factor), torch.eye(2))
