"""Losses compared with NumPy implementations; ignored pixels change neither loss nor gradient."""

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
        weight_of_positives = 1 - target[valid].mean() if weight is None else weight
        p = 1 / (1 + np.exp(-logits[:, 0][valid]))
        label = target[valid]
        log_likelihood = weight_of_positives * label * np.log(p) + (1 - weight_of_positives) * (
            1 - label
        ) * np.log(1 - p)
        return -log_likelihood.mean()

    return loss


def at_valid(array, valid):
    """Select valid pixels: shape (B, C, H, W) to (pixels, C)."""
    return np.moveaxis(array, 1, -1)[valid]


def numpy_l1(prediction, target, valid):
    return np.abs(at_valid(prediction, valid) - at_valid(target, valid)).mean()


def numpy_log_l1(prediction, target, valid):
    pairs = zip(at_valid(prediction, valid)[:, 0], at_valid(target, valid)[:, 0], strict=True)
    return np.mean([abs(log(p) - log(t)) for p, t in pairs])


def numpy_berhu(prediction, target, valid):
    error = np.abs(at_valid(prediction, valid) - at_valid(target, valid))
    threshold = error.max() / 5
    return np.mean(
        [
            e if e <= threshold else (e * e + threshold * threshold) / (2 * threshold)
            for e in error.ravel()
        ]
    )


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


def numpy_vector_l1(reduction):
    def loss(logits, target, valid):
        error = np.abs(at_valid(unit(logits), valid) - at_valid(target, valid))
        return error.sum() / (valid.sum() * (3 if reduction == "element_mean" else 1))

    return loss


def numpy_cosine(logits, target, valid):
    return np.mean(1 - (at_valid(unit(logits), valid) * at_valid(target, valid)).sum(1))


def bce(weight):
    return lambda logits, target, valid: balanced_bce(logits, target, valid, weight)


def vector_l1(reduction):
    return lambda logits, target, valid: direction.l1(logits, target, valid, reduction)


Case = tuple[Callable[..., Tensor], Callable[..., float], str]
CASES: dict[str, Case] = {
    "cross_entropy": (cross_entropy, numpy_cross_entropy, "classes"),
    "bce fixed": (bce(0.95), numpy_bce(0.95), "binary"),
    "bce batch": (bce(None), numpy_bce(None), "binary"),
    "l1": (regression.l1, numpy_l1, "meters"),
    "log_l1": (regression.log_l1, numpy_log_l1, "meters"),
    "berhu": (regression.berhu, numpy_berhu, "meters"),
    "silog": (regression.silog, numpy_silog, "meters"),
    "vector l1 elements": (vector_l1("element_mean"), numpy_vector_l1("element_mean"), "vectors"),
    "vector l1 pixels": (vector_l1("pixel_mean"), numpy_vector_l1("pixel_mean"), "vectors"),
    "cosine": (direction.cosine, numpy_cosine, "vectors"),
}
CHANNELS = {"classes": 4, "binary": 1, "meters": 1, "vectors": 3}


def make_sample(
    kind: str, seed: int = 0, ignored_fraction: float = 0.3
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample (logits, target with ignored pixels, valid)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, CHANNELS[kind], *SHAPE[1:])).astype(np.float32)
    valid = rng.random(SHAPE) >= ignored_fraction
    if kind in ("classes", "binary"):
        target = rng.integers(0, max(CHANNELS[kind], 2), SHAPE).astype(np.uint8)
        target[~valid] = IGNORE_INDEX
    else:
        target = unit(rng.normal(size=logits.shape).astype(np.float32))
        if kind == "meters":
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
def test_values_equal_numpy(case, seed):
    loss, reference, kind = CASES[case]
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
    loss, _, kind = CASES[case]
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
    loss, _, kind = CASES[case]
    logits, target, _ = make_sample(kind, ignored_fraction=1.0)
    value, gradient = loss_and_gradient(loss, logits, target, torch.zeros(SHAPE, dtype=torch.bool))
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_finite_differences(case):
    loss, reference, kind = CASES[case]
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
    loss, _, kind = CASES[case]
    logits, target, valid = make_sample(kind)
    half = logits.bfloat16()
    value, gradient = loss_and_gradient(loss, half, target, valid)
    assert value.dtype == torch.float32
    assert value == loss(half.float(), target, valid)
    assert gradient.dtype == torch.bfloat16
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("case", ["log_l1", "silog"])
def test_nonpositive_depth_has_gradient_towards_positive(case):
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
def test_zero_vectors_have_finite_gradient(case):
    loss, _, kind = CASES[case]
    logits, target, valid = make_sample(kind)
    value, gradient = loss_and_gradient(loss, torch.zeros_like(logits), target, valid)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_pixel_mean_is_three_times_element_mean():
    sample = make_sample("vectors")
    ratio = direction.l1(*sample, "pixel_mean") / direction.l1(*sample, "element_mean")
    assert ratio.item() == pytest.approx(3)


def test_length_of_prediction_does_not_matter():
    logits, target, valid = make_sample("vectors")
    for loss in (vector_l1("element_mean"), direction.cosine):
        assert loss(7 * logits, target, valid).item() == pytest.approx(
            loss(logits, target, valid).item(), rel=1e-5
        )


def test_perfect_prediction_has_zero_loss():
    for kind, losses in (
        ("meters", regression.LOSSES.values()),
        ("vectors", (vector_l1("pixel_mean"), direction.cosine)),
    ):
        _, target, valid = make_sample(kind)
        for loss in losses:
            value, gradient = loss_and_gradient(loss, target.nan_to_num(1), target, valid)
            assert value.item() == pytest.approx(0, abs=1e-6)
            assert torch.isfinite(gradient).all()


def test_bce_of_one_class_has_zero_loss_with_batch_weight():
    logits, _, valid = make_sample("binary")
    for label in (0, 1):
        target = torch.full(SHAPE, label, dtype=torch.uint8)
        assert balanced_bce(logits, target, valid, None) == 0
        assert balanced_bce(logits, target, valid, 0.95) > 0


@pytest.mark.parametrize(("loss", "_", "kind"), CASES.values(), ids=CASES)
def test_memory_layout_does_not_matter(loss, _, kind):
    logits, target, valid = make_sample(kind)
    channels_last = logits.to(memory_format=torch.channels_last)
    one = loss_and_gradient(loss, logits, target, valid)
    for found, expected in zip(
        loss_and_gradient(loss, channels_last, target, valid), one, strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_mean_is_over_pixels_of_whole_batch():
    """The mean is not per image: an image with few labels must not count as much as a full one."""
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
    _, gradient = loss_and_gradient(regression.berhu, errors, torch.zeros_like(errors), valid)
    assert (4 * gradient).flatten().tolist() == pytest.approx([1, -1, 2, -5])
