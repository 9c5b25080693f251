"""Tensor-normal distribution: its quadratic form, and the flip-flop estimate of its covariances.

The covariance of a tensor of shape (T, O, D) is the Kronecker product of one matrix per axis, times
a scalar variance, so that no matrix of (T O D)^2 entries is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Factors = Sequence[Tensor | None]
"""Lower Cholesky factor of the covariance of each axis; None stands for the identity matrix."""


def whiten(values: Tensor, factors: Factors) -> Tensor:
    """Multiply each axis of a tensor by the inverse of its Cholesky factor.

    The sum of squares of the result is the quadratic form of the distribution. The inverses are not
    computed: a triangular system is solved along each axis.

    Args:
        values: tensor of any shape, with one axis per factor.
        factors: lower triangular factors; None leaves an axis as it is.

    Returns:
        A tensor of the same shape.

    Example:
        >>> import torch
        >>> whiten(torch.tensor([[4.0, 6.0]]), [None, torch.tensor([[2.0, 0.0], [0.0, 3.0]])])
        tensor([[2., 2.]])
    """
    for axis, factor in enumerate(factors):
        if factor is not None:
            rows = _unfold(values, axis)
            solved = torch.linalg.solve_triangular(factor, rows, upper=False)
            values = _fold(solved, values.shape, axis)
    return values


def update_factor(values: Tensor, factors: Factors, axis: int, ridge: float = 0.0) -> Tensor:
    """Estimate the covariance of one axis by maximum likelihood, with those of the others fixed.

    Called for one axis after the other, these are the flip-flop updates of Dutilleul, "The MLE
    algorithm for the matrix normal distribution", 1999.

    Args:
        values: weights, with one axis per factor.
        factors: lower Cholesky factors of the covariances of the other axes.
        axis: the axis to estimate; its own factor is not used.
        ridge: this fraction of the mean variance is added to the variances.

    Returns:
        The lower Cholesky factor of the covariance with the ridge.
    """
    others = [None if index == axis else factor for index, factor in enumerate(factors)]
    rows = _unfold(whiten(values, others), axis)
    covariance = rows @ rows.mT / rows.shape[1]
    # The factor of weights that are all 0 is not finite with a variance of 0.
    variance = covariance.diagonal().mean().clamp(min=torch.finfo(rows.dtype).eps ** 2)
    eye = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    # This variant of the decomposition does not wait for a GPU.
    factor: Tensor = torch.linalg.cholesky_ex(covariance + ridge * variance * eye).L
    return factor


def to_correlation(factor: Tensor) -> Tensor:
    """Compute the correlation matrix of a covariance.

    Args:
        factor: lower Cholesky factor of the covariance, shape (N, N).

    Returns:
        The correlations in [-1, 1], shape (N, N), with a diagonal of 1.
    """
    unit = scale_to_unit_variances(factor)
    correlation: Tensor = unit @ unit.mT
    return correlation


def scale_to_unit_variances(factor: Tensor) -> Tensor:
    """Return the Cholesky factor of the correlation matrix of a covariance.

    Args:
        factor: lower Cholesky factor of the covariance, shape (N, N).

    Returns:
        The lower Cholesky factor (N, N) of its correlations.
    """
    unit_rows: Tensor = factor / factor.norm(dim=1, keepdim=True)
    return unit_rows


def _unfold(values: Tensor, axis: int) -> Tensor:
    """Return a matrix whose rows belong to the entries of an axis."""
    return values.movedim(axis, 0).reshape(values.shape[axis], -1)


def _fold(rows: Tensor, shape: torch.Size, axis: int) -> Tensor:
    """Invert `_unfold`."""
    moved = [shape[axis], *(size for index, size in enumerate(shape) if index != axis)]
    return rows.reshape(moved).movedim(0, axis)
