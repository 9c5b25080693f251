"""Losses against restatements in numpy loops; void pixels change neither loss nor gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from densemtl.losses import direction, regression
from densemtl.losses.balanced_bce import balanced_bce
from densemtl.losses.cross_entropy import cross_entropy
from densemtl.types import IGNORE_INDEX

SHAPE = (2, 5, 6)


def log(value: float) -> float:
    return np.log(value) if value > 0.1 else np.log(0.1) + (value - 0.1) / 0.1


def numpy_cross_entropy(logits, target, valid):
    total = 0.0
    for b, y, x in np.argwhere(valid):
        column = logits[b, :, y, x]
        total -= np.log(np.exp(column[target[b, y, x]]) / np.exp(column).sum())
    return total / valid.sum()


def numpy_bce(weight):
    def loss(logits, target, valid):
        share = 1 - target[valid].mean() if weight is None else weight
        p = 1 / (1 + np.exp(-logits[:, 0][valid]))
        label = target[valid]
        sides = share * label * np.log(p) + (1 - share) * (1 - label) * np.log(1 - p)
        return -sides.mean()

    return loss


def at_valid(array, valid):
    """BxCxHxW -> pixels x C."""
    return np.moveaxis(array, 1, -1)[valid]


def numpy_l1(prediction, target, valid):
    return np.abs(at_valid(prediction, valid) - at_valid(target, valid)).mean()


def numpy_log_l1(prediction, target, valid):
    pairs = zip(at_valid(prediction, valid)[:, 0], at_valid(target, valid)[:, 0], strict=True)
    return np.mean([abs(log(p) - log(t)) for p, t in pairs])


def numpy_berhu(prediction, target, valid):
    error = np.abs(at_valid(prediction, valid) - at_valid(target, valid))
    turn = error.max() / 5
    return np.mean([e if e <= turn else (e * e + turn * turn) / (2 * turn) for e in error.ravel()])


def numpy_silog(prediction, target, valid):
    images = []
    for b in range(len(valid)):
        rows, columns = np.nonzero(valid[b])
        if not len(rows):
            continue
        pairs = zip(prediction[b, 0][rows, columns], target[b, 0][rows, columns], strict=True)
        error = np.array([log(p) - log(t) for p, t in pairs])
        images.append((error**2).mean() - 0.5 * error.mean() ** 2)
    return np.mean(images)


def unit(array):
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def numpy_vector_l1(divisor):
    def loss(logits, target, valid):
        error = np.abs(at_valid(unit(logits), valid) - at_valid(target, valid))
        return error.sum() / (valid.sum() * (3 if divisor == "element_mean" else 1))

    return loss


def numpy_cosine(logits, target, valid):
    return np.mean(1 - (at_valid(unit(logits), valid) * at_valid(target, valid)).sum(1))


def bce(weight):
    return lambda logits, target, valid: balanced_bce(logits, target, valid, weight)


def vector_l1(divisor):
    return lambda logits, target, valid: direction.l1(logits, target, valid, divisor)


Case = tuple[Callable[..., Tensor], Callable[..., float], str]
CASES: dict[str, Case] = {
    "cross_entropy": (cross_entropy, numpy_cross_entropy, "classes"),
    "bce fixed": (bce(0.95), numpy_bce(0.95), "binary"),
    "bce batch": (bce(None), numpy_bce(None), "binary"),
    "l1": (regression.l1, numpy_l1, "metres"),
    "log_l1": (regression.log_l1, numpy_log_l1, "metres"),
    "berhu": (regression.berhu, numpy_berhu, "metres"),
    "silog": (regression.silog, numpy_silog, "metres"),
    "vector l1 elements": (vector_l1("element_mean"), numpy_vector_l1("element_mean"), "vectors"),
    "vector l1 pixels": (vector_l1("pixel_mean"), numpy_vector_l1("pixel_mean"), "vectors"),
    "cosine": (direction.cosine, numpy_cosine, "vectors"),
}
CHANNELS = {"classes": 4, "binary": 1, "metres": 1, "vectors": 3}


def draw(kind: str, seed: int = 0, void: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """(logits, target with void planted, valid)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, CHANNELS[kind], *SHAPE[1:])).astype(np.float32)
    valid = rng.random(SHAPE) >= void
    if kind in ("classes", "binary"):
        target = rng.integers(0, max(CHANNELS[kind], 2), SHAPE).astype(np.uint8)
        target[~valid] = IGNORE_INDEX
    else:
        target = unit(rng.normal(size=logits.shape).astype(np.float32))
        if kind == "metres":
            target = rng.uniform(0.05, 9, logits.shape).astype(np.float32)
        target = np.where(valid[:, None], target, np.float32(np.nan))
    return torch.from_numpy(logits), torch.from_numpy(target), torch.from_numpy(valid)


def loss_and_gradient(loss, logits, target, valid) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target, valid)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_values_as_restated(case, seed):
    loss, restated, kind = CASES[case]
    drawn = draw(kind, seed)
    value = loss(*drawn)
    assert value.shape == ()
    assert value.dtype == torch.float32
    expected = restated(
        *(array.double().numpy() if array.is_floating_point() else array.numpy() for array in drawn)
    )
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_void_pixels_change_neither_loss_nor_gradient(case):
    loss, _, kind = CASES[case]
    logits, target, valid = draw(kind)
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
def test_without_a_valid_pixel_loss_and_gradient_are_exactly_zero(case):
    loss, _, kind = CASES[case]
    logits, target, _ = draw(kind, void=1.0)
    value, gradient = loss_and_gradient(loss, logits, target, torch.zeros(SHAPE, dtype=torch.bool))
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_finite_differences(case):
    loss, restated, kind = CASES[case]
    logits, target, valid = draw(kind)
    _, gradient = loss_and_gradient(loss, logits, target, valid)
    arrays = logits.double().numpy(), target.numpy(), valid.numpy()
    places = np.argwhere(valid.numpy())[::9]
    if case == "berhu":  # its turning point, held constant, moves with the largest error
        largest = (logits - target.nan_to_num(0)).abs()[:, 0].where(valid, 0).argmax()
        places = [place for place in places if np.ravel_multi_index(place, SHAPE) != largest]
    for b, y, x in places:
        step = np.zeros(logits.shape)
        step[b, 0, y, x] = 1e-5
        ahead, behind = (restated(arrays[0] + sign * step, *arrays[1:]) for sign in (1, -1))
        assert gradient[b, 0, y, x].item() == pytest.approx((ahead - behind) / 2e-5, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_half_precision_logits_are_computed_in_float32(case):
    loss, _, kind = CASES[case]
    logits, target, valid = draw(kind)
    half = logits.bfloat16()
    value, gradient = loss_and_gradient(loss, half, target, valid)
    assert value.dtype == torch.float32
    assert value == loss(half.float(), target, valid)
    assert gradient.dtype == torch.bfloat16
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("case", ["log_l1", "silog"])
def test_metres_that_are_not_positive_have_a_gradient_that_raises_them(case):
    loss, _, _ = CASES[case]
    value, gradient = loss_and_gradient(
        loss,
        torch.tensor([-2.0, 3.0]).view(1, 1, 1, 2),
        torch.full((1, 1, 1, 2), 3.0),
        torch.ones(1, 1, 2, dtype=torch.bool),
    )
    assert torch.isfinite(value)
    assert gradient[0, 0, 0, 0] < 0


@pytest.mark.parametrize("case", ["vector l1 elements", "vector l1 pixels", "cosine"])
def test_vectors_of_no_length_have_a_finite_gradient(case):
    loss, _, kind = CASES[case]
    logits, target, valid = draw(kind)
    value, gradient = loss_and_gradient(loss, torch.zeros_like(logits), target, valid)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_dividing_by_pixels_is_three_times_dividing_by_elements():
    drawn = draw("vectors")
    ratio = direction.l1(*drawn, "pixel_mean") / direction.l1(*drawn, "element_mean")
    assert ratio.item() == pytest.approx(3)


def test_the_length_of_a_prediction_does_not_matter():
    logits, target, valid = draw("vectors")
    for loss in (vector_l1("element_mean"), direction.cosine):
        assert loss(7 * logits, target, valid).item() == pytest.approx(
            loss(logits, target, valid).item(), rel=1e-5
        )


def test_a_perfect_prediction_costs_nothing():
    for kind, losses in (
        ("metres", regression.LOSSES.values()),
        ("vectors", (vector_l1("pixel_mean"), direction.cosine)),
    ):
        _, target, valid = draw(kind)
        for loss in losses:
            value, gradient = loss_and_gradient(loss, target.nan_to_num(1), target, valid)
            assert value.item() == pytest.approx(0, abs=1e-6)
            assert torch.isfinite(gradient).all()


def test_a_batch_of_one_side_balanced_by_itself_costs_nothing():
    logits, _, valid = draw("binary")
    for label in (0, 1):
        target = torch.full(SHAPE, label, dtype=torch.uint8)
        assert balanced_bce(logits, target, valid, None) == 0
        assert balanced_bce(logits, target, valid, 0.95) > 0


@pytest.mark.parametrize(("loss", "_", "kind"), CASES.values(), ids=CASES)
def test_the_layout_in_memory_does_not_matter(loss, _, kind):
    logits, target, valid = draw(kind)
    aside = logits.to(memory_format=torch.channels_last)
    one = loss_and_gradient(loss, logits, target, valid)
    for found, expected in zip(loss_and_gradient(loss, aside, target, valid), one, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_sums_are_divided_by_the_pixels_of_the_whole_batch():
    """Not by image: an image with few labels must not weigh as much as a full one."""
    logits, target, _ = draw("classes", void=0.0)
    valid = torch.zeros(SHAPE, dtype=torch.bool)
    valid[0], valid[1, 0, 0] = True, True
    first = cross_entropy(logits[:1], target[:1], valid[:1]) * 30
    second = cross_entropy(logits[1:], target[1:], valid[1:])
    both = cross_entropy(logits, target, valid)
    assert both.item() == pytest.approx(((first + second) / 31).item(), rel=1e-5)


def test_berhu_holds_its_turning_point_constant():
    """Slope 1 up to a fifth of the largest error, error / turn beyond, at the largest pixel too."""
    errors = torch.tensor([0.5, -1.0, 2.0, -5.0]).view(1, 1, 1, 4)
    valid = torch.ones(1, 1, 4, dtype=torch.bool)
    _, gradient = loss_and_gradient(regression.berhu, errors, torch.zeros_like(errors), valid)
    assert (4 * gradient).flatten().tolist() == pytest.approx([1, -1, 2, -5])
