"""Tests of gated classes against binary and softmax cross-entropies in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.ops.gated_classes import gate_by_classes, gate_by_logit

SHAPE = (2, 5, 6)
OPEN = (1, 3)
"""Ids of the other task for which the gate is open."""


def make_logits(channels: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = SHAPE
    return 3 * torch.randn(batch, channels, height, width, generator=generator).double()


def compute(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities, the probability of the gate, and the logits under the gate."""
    logits, host = make_logits(4, 0), make_logits(5, 1)
    if kind == "separate":
        return gate_by_logit(logits), logits[:, 0].sigmoid(), logits[:, 1:]
    gate = host.softmax(dim=1)[:, list(OPEN)].sum(dim=1)
    return gate_by_classes(logits, host, OPEN), gate, logits[:, 1:]


@pytest.mark.parametrize("kind", ["separate", "host"])
def test_probabilities_are_those_of_the_product(kind: str) -> None:
    log_probs, gate, inside = compute(kind)
    expected = torch.cat([1 - gate[:, None], gate[:, None] * inside.softmax(dim=1)], dim=1)
    torch.testing.assert_close(log_probs.exp(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones_like(gate))
    torch.testing.assert_close(log_probs.log_softmax(dim=1), log_probs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["separate", "host"])
def test_likelihood_is_that_of_the_gate_and_of_the_classes_under_it(kind: str) -> None:
    log_probs, gate, inside = compute(kind)
    target = torch.randint(0, 4, SHAPE, generator=torch.Generator().manual_seed(2))
    is_open = target > 0
    of_gate = F.binary_cross_entropy(gate, is_open.double(), reduction="sum")
    of_classes = F.cross_entropy(inside, target - 1, ignore_index=-1, reduction="sum")
    actual = F.cross_entropy(log_probs, target, reduction="sum")
    torch.testing.assert_close(actual, of_gate + of_classes)


def test_an_open_gate_leaves_the_classes_under_it() -> None:
    logits, host = make_logits(4, 0), make_logits(5, 1)
    host[:, OPEN[0]] += 1000
    log_probs = gate_by_classes(logits, host, OPEN)
    torch.testing.assert_close(log_probs[:, 1:], logits[:, 1:].log_softmax(dim=1))
    assert bool((log_probs[:, 0] < -900).all())
    assert bool(log_probs.isfinite().all())


def test_half_precision_is_computed_in_single_precision() -> None:
    half = gate_by_classes(make_logits(4, 0).half(), make_logits(5, 1).half(), OPEN)
    assert half.dtype == torch.float32
    assert gate_by_logit(torch.full((1, 2, 1, 1), 60.0).half()).isfinite().all()
