"""Eager gradients equal those of autograd, and full-size maps are freed after the loss."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakSet

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from densemtl.losses.base import LabelInfo
from densemtl.losses.cross_entropy import CrossEntropy
from densemtl.losses.eager_gradient import compute_loss_with_eager_gradient
from densemtl.ops import lazy_upsampling
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.types import IGNORE_INDEX, ImagePlacement, Predictions

PADDED_SIZE, SIZE = (32, 48), (27, 45)
PLACEMENT = ImagePlacement(SIZE, (0, 0, *SIZE))


def compute_values_and_gradients(loss, other, logits):
    """Return (value, gradient) of three times each loss."""
    found = []
    for each in (loss, other):
        leaf = logits.detach().clone().requires_grad_()
        value = each(leaf)
        (3 * value).backward()
        found.append((value.detach(), leaf.grad))
    return found


def assert_same_loss_and_gradient(loss, other, logits):
    for found, expected in zip(*compute_values_and_gradients(loss, other, logits), strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_sum_over_overlapping_parts():
    logits = torch.randn(4, 3)
    parts = [((slice(0, 3),), torch.sum), ((slice(1, 4),), lambda each: each.square().sum())]
    assert_same_loss_and_gradient(
        lambda each: compute_loss_with_eager_gradient(each, parts),
        lambda each: each[:3].sum() + each[1:].square().sum(),
        logits,
    )


def test_no_gradient_is_computed_if_not_required():
    logits = torch.randn(4, 3)
    value = compute_loss_with_eager_gradient(logits, [(..., torch.sum)])
    assert value == logits.sum()
    assert not value.requires_grad


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("elements", [1, 10**9])
def test_banded_cross_entropy_equals_cross_entropy(monkeypatch, elements, layout):
    monkeypatch.setattr(lazy_upsampling, "MAX_BAND_ELEMENTS", elements)
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 8, 12).contiguous(memory_format=layout)
    target = torch.randint(0, 5, (2, *SIZE)).byte()
    target[:, ::3, ::4] = IGNORE_INDEX
    valid, loss = target != IGNORE_INDEX, CrossEntropy(LabelInfo("classes", 5, 5))

    def plain(each):
        full = F.interpolate(each, size=PADDED_SIZE, mode="bilinear")[..., : SIZE[0], : SIZE[1]]
        return loss.compute(full, target, valid)

    def in_bands(each):
        return loss.compute_low_res(
            LazyLogits.from_placement(each, PLACEMENT, PADDED_SIZE), target, valid
        )

    assert_same_loss_and_gradient(in_bands, plain, logits)


def make_sample(task):
    torch.manual_seed(0)
    logits = torch.randn(2, task.channels, 8, 12)
    if task.make_empty_label((1, 1)).dtype == "uint8":
        target = torch.randint(0, max(task.channels, 2), (2, *SIZE)).byte()
        target[0, :9] = IGNORE_INDEX
    else:
        target = F.normalize(torch.rand(2, task.channels, *SIZE) + 0.1)
        target[0, :, :9] = torch.nan
    return logits, target


def test_loss_of_every_task_equals_full_size_loss(any_task):
    logits, target = make_sample(any_task)

    def in_one(each):
        final = {any_task.name: each}
        predictions = Predictions(final, [final], padded_size=PADDED_SIZE)
        return compute_task_losses([any_task], predictions, {any_task.name: target}).tasks[
            any_task.name
        ]

    def plain(each):
        full = F.interpolate(each, size=PADDED_SIZE, mode="bilinear")[..., : SIZE[0], : SIZE[1]]
        return 2 * any_task.compute_loss(full, target)

    assert_same_loss_and_gradient(in_one, plain, logits)


@dataclass(eq=False)
class Saved:
    tensor: torch.Tensor


def test_only_gradient_of_logits_is_kept(any_task):
    logits, target = make_sample(any_task)
    alive: WeakSet[Saved] = WeakSet()

    def pack_tensor(tensor):
        saved = Saved(tensor)
        alive.add(saved)
        return saved

    final, targets = {any_task.name: logits.requires_grad_()}, {any_task.name: target}
    with saved_tensors_hooks(pack_tensor, lambda saved: saved.tensor):
        losses = compute_task_losses(
            [any_task], Predictions(final, padded_size=PADDED_SIZE), targets
        )
    scalars = 8
    num_elements = sum(saved.tensor.numel() for saved in alive)
    assert logits.numel() <= num_elements <= logits.numel() + scalars
    losses.tasks[any_task.name].backward()
    assert logits.grad is not None
