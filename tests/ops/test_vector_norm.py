"""Norms and unit vectors compared with those of torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from densemtl.ops.vector_norm import normalize, vector_norm


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("shortest", [1e-12, 1e-4])
def test_normalize_equals_torch(channels: int, shortest: float) -> None:
    vectors = torch.randn(2, channels, 5, 7, requires_grad=True)
    with torch.no_grad():
        vectors[0, :, 0, 0] = 0
        vectors[0, :, 1, 1] *= 1e-6
    ours, theirs = normalize(vectors, shortest), F.normalize(vectors, dim=1, eps=shortest)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    (one,) = torch.autograd.grad((ours * weights).sum(), vectors, retain_graph=True)
    (other,) = torch.autograd.grad((theirs * weights).sum(), vectors)
    torch.testing.assert_close(one, other)


def test_vector_norm_equals_torch() -> None:
    vectors = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(vector_norm(vectors), vectors.norm(dim=1))
    assert vector_norm(torch.zeros(1, 3, 2, 2), eps=0.5).eq(0.5).all()


def test_bfloat16_is_converted_to_float32() -> None:
    unit_vectors = normalize(torch.randn(1, 3, 4, 4, dtype=torch.bfloat16), 1e-4)
    assert unit_vectors.dtype == torch.float32
    torch.testing.assert_close(vector_norm(unit_vectors), torch.ones(1, 4, 4))
