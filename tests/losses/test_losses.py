"""Losses compared with NumPy implementations; ignored pixels change neither loss nor gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from densemtl import registry
from densemtl.losses.base import LabelInfo
from densemtl.losses.options import list_losses
from tests.helpers.loss_cases import CASES, SHAPE, create_loss, make_sample

FLOAT_KINDS = ("values", "directions")


def create_case(case):
    """Create the loss of a case as a function of (logits, target, valid)."""
    return create_loss(CASES[case].name, CASES[case].kind, **CASES[case].options)


def loss_and_gradient(loss, logits, target, valid) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target, valid)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_values_equal_numpy(case, seed):
    kind, reference = CASES[case].kind, CASES[case].reference
    loss = create_case(case)
    sample = make_sample(kind, seed)
    value = loss(*sample)
    assert value.shape == ()
    assert value.dtype == torch.float32
    expected = reference(
        *(
            array.double().numpy() if array.is_floating_point() else array.numpy()
            for array in sample
        )
    )
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_ignored_pixels_change_neither_loss_nor_gradient(case):
    loss, kind = create_case(case), CASES[case].kind
    logits, target, valid = make_sample(kind)
    value, gradient = loss_and_gradient(loss, logits, target, valid)
    mask = valid.unsqueeze(1)
    other = torch.where(mask, logits, 50 * torch.rand_like(logits))
    label = valid if kind in ("classes", "binary") else mask
    filled = torch.where(label, target, torch.ones_like(target))
    again, same = loss_and_gradient(loss, other, filled, valid)
    assert again == value
    assert torch.isfinite(gradient).all()
    assert torch.equal(same, gradient)
    assert (gradient * ~mask == 0).all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_are_zero_without_valid_pixels(case):
    loss, kind = create_case(case), CASES[case].kind
    logits, target, _ = make_sample(kind, ignored_fraction=1.0)
    value, gradient = loss_and_gradient(loss, logits, target, torch.zeros(SHAPE, dtype=torch.bool))
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_finite_differences(case):
    loss, kind, reference = create_case(case), CASES[case].kind, CASES[case].reference
    logits, target, valid = make_sample(kind)
    _, gradient = loss_and_gradient(loss, logits, target, valid)
    arrays = logits.double().numpy(), target.numpy(), valid.numpy()
    pixels = np.argwhere(valid.numpy())[::9]
    if case == "berhu":
        # The threshold is constant in the gradient, but depends on the largest error.
        largest = (logits - target.nan_to_num(0)).abs()[:, 0].where(valid, 0).argmax()
        pixels = [pixel for pixel in pixels if np.ravel_multi_index(pixel, SHAPE) != largest]
    for b, y, x in pixels:
        step = np.zeros(logits.shape)
        step[b, 0, y, x] = 1e-5
        ahead, behind = (reference(arrays[0] + sign * step, *arrays[1:]) for sign in (1, -1))
        assert gradient[b, 0, y, x].item() == pytest.approx((ahead - behind) / 2e-5, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_logits_are_computed_in_float32(case):
    loss, kind = create_case(case), CASES[case].kind
    logits, target, valid = make_sample(kind)
    half = logits.bfloat16()
    value, gradient = loss_and_gradient(loss, half, target, valid)
    assert value.dtype == torch.float32
    assert value == loss(half.float(), target, valid)
    assert gradient.dtype == torch.bfloat16
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("case", CASES)
def test_autocast_does_not_change_the_loss(case):
    loss, (logits, target, valid) = create_case(case), make_sample(CASES[case].kind)
    expected = loss_and_gradient(loss, logits, target, valid)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_and_gradient(loss, logits, target, valid)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("case", CASES)
def test_loss_does_not_synchronize_with_the_device(case):
    """Tensors on the device "meta" have no values that the host could read."""
    loss, sample = create_case(case), make_sample(CASES[case].kind)
    logits, target, valid = (tensor.to("meta") for tensor in sample)
    with torch.device("meta"):
        value, gradient = loss_and_gradient(loss, logits, target, valid)
    assert value.shape == ()
    assert gradient.shape == logits.shape


@pytest.mark.parametrize("name", list_losses("classes"))
def test_single_class(name):
    loss = registry.create("losses", name, LabelInfo("classes", 1, 1), options={})
    logits, target = (
        torch.randn(1, 1, 3, 4),
        torch.tensor([0, 0, 255]).view(1, 3, 1).expand(1, 3, 4),
    )
    value, gradient = loss_and_gradient(loss.compute, logits, target, target != 255)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("case", ["log_l1", "silog"])
def test_nonpositive_depth_has_gradient_towards_positive(case):
    loss = create_case(case)
    value, gradient = loss_and_gradient(
        loss,
        torch.tensor([-2.0, 3.0]).view(1, 1, 1, 2),
        torch.full((1, 1, 1, 2), 3.0),
        torch.ones(1, 1, 2, dtype=torch.bool),
    )
    assert torch.isfinite(value)
    assert gradient[0, 0, 0, 0] < 0


@pytest.mark.parametrize("case", ["vector l1 elements", "vector l1 pixels", "cosine", "angular"])
def test_zero_vectors_have_finite_gradient(case):
    loss, kind = create_case(case), CASES[case].kind
    logits, target, valid = make_sample(kind)
    value, gradient = loss_and_gradient(loss, torch.zeros_like(logits), target, valid)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_pixel_mean_is_three_times_element_mean():
    sample = make_sample("directions")
    pixels, elements = (create_case(f"vector l1 {each}") for each in ("pixels", "elements"))
    ratio = pixels(*sample) / elements(*sample)
    assert ratio.item() == pytest.approx(3)


def test_length_of_prediction_does_not_matter():
    logits, target, valid = make_sample("directions")
    for loss in map(create_case, ("vector l1 elements", "cosine", "angular")):
        assert loss(7 * logits, target, valid).item() == pytest.approx(
            loss(logits, target, valid).item(), rel=1e-5
        )


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if CASES[case].kind in FLOAT_KINDS and case != "edge_aware_smoothness"],
)
def test_perfect_prediction_has_zero_loss(case):
    _, target, valid = make_sample(CASES[case].kind)
    value, gradient = loss_and_gradient(create_case(case), target.nan_to_num(1), target, valid)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(gradient).all()


def test_bce_of_one_class_has_zero_loss_with_batch_weight():
    logits, _, valid = make_sample("binary")
    for label in (0, 1):
        target = torch.full(SHAPE, label, dtype=torch.uint8)
        assert create_case("bce batch")(logits, target, valid) == 0
        assert create_case("bce fixed")(logits, target, valid) > 0


@pytest.mark.parametrize("case", CASES)
def test_memory_layout_does_not_matter(case):
    loss, kind = create_case(case), CASES[case].kind
    logits, target, valid = make_sample(kind)
    channels_last = logits.to(memory_format=torch.channels_last)
    one = loss_and_gradient(loss, logits, target, valid)
    for found, expected in zip(
        loss_and_gradient(loss, channels_last, target, valid), one, strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_mean_is_over_pixels_of_whole_batch():
    """The mean is not per image: an image with few labels must not count as much as a full one."""
    cross_entropy = create_case("cross_entropy")
    logits, target, _ = make_sample("classes", ignored_fraction=0.0)
    valid = torch.zeros(SHAPE, dtype=torch.bool)
    valid[0], valid[1, 0, 0] = True, True
    first = cross_entropy(logits[:1], target[:1], valid[:1]) * 30
    second = cross_entropy(logits[1:], target[1:], valid[1:])
    both = cross_entropy(logits, target, valid)
    assert both.item() == pytest.approx(((first + second) / 31).item(), rel=1e-5)


def test_berhu_threshold_has_no_gradient():
    """The slope is 1 up to a fifth of the largest error, and error / threshold above.

    This also holds at the pixel with the largest error.
    """
    errors = torch.tensor([0.5, -1.0, 2.0, -5.0]).view(1, 1, 1, 4)
    valid = torch.ones(1, 1, 4, dtype=torch.bool)
    _, gradient = loss_and_gradient(create_case("berhu"), errors, torch.zeros_like(errors), valid)
    assert (4 * gradient).flatten().tolist() == pytest.approx([1, -1, 2, -5])
