"""Losses with independent NumPy implementations, and random samples for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from densemtl import registry
from densemtl.losses.base import LabelInfo, Loss
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


def numpy_angular(logits, target, valid):
    cosines = (at_valid(unit(logits), valid) * at_valid(target, valid)).sum(1)
    return np.arccos(cosines.clip(-1, 1)).mean()


def log_probabilities(logits, target, valid):
    """Return (log probabilities of all ids, ids) of the valid pixels, image by image."""
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    pairs = []
    for image, ids, mask in zip(logits, target, valid, strict=True):
        pixels = image[:, mask].T
        total = np.log(np.exp(pixels).sum(1, keepdims=True))
        pairs.append((pixels - total, ids[mask].astype(int)))
    return pairs


def all_pixels(logits, target, valid):
    pairs = log_probabilities(logits, target, valid)
    return np.concatenate([p for p, _ in pairs]), np.concatenate([ids for _, ids in pairs])


def of_label(values, ids):
    return values[np.arange(len(ids)), ids]


WEIGHTS = [0.5, 2.0, 1.0, 3.0]


def numpy_weighted_cross_entropy(smoothing, *sample):
    logs, ids = all_pixels(*sample)
    weights = np.array(WEIGHTS)[: logs.shape[1]]
    smooth = -(weights * logs).mean(1)
    total = -(1 - smoothing) * weights[ids] * of_label(logs, ids) + smoothing * smooth
    return total.sum() / weights[ids].sum()


def numpy_focal(gamma, weights, *sample):
    logs, ids = all_pixels(*sample)
    log = of_label(logs, ids)
    weight = np.array(weights)[ids]
    return -(weight * (1 - np.exp(log)) ** gamma * log).sum() / weight.sum()


def numpy_ohem(threshold, min_kept, *sample):
    kept = []
    for logs, ids in log_probabilities(*sample):
        losses = np.sort(-of_label(logs, ids))[::-1]
        hard = max((losses > -np.log(threshold)).sum(), int(np.ceil(min_kept * len(losses))))
        kept += list(losses[:hard])
    return np.mean(kept)


def numpy_dice(smooth, *sample):
    logs, ids = all_pixels(*sample)
    losses = []
    for c in range(1 if sample[0].shape[1] == 1 else 0, logs.shape[1]):
        p, label = np.exp(logs[:, c]), ids == c
        if label.any():
            losses.append(1 - (2 * p[label].sum() + smooth) / (p.sum() + label.sum() + smooth))
    return np.mean(losses)


def numpy_lovasz(*sample):
    """Sum the errors times the increase of the Jaccard loss of growing sets of wrong pixels."""
    images = []
    for logs, ids in log_probabilities(*sample):
        classes = []
        for c in set(ids):
            label = ids == c
            errors = np.where(label, 1 - np.exp(logs[:, c]), np.exp(logs[:, c]))
            wrong, loss, before = np.zeros(len(ids), bool), 0.0, 0.0
            for pixel in np.argsort(-errors):
                wrong[pixel] = True
                jaccard = 1 - (label & ~wrong).sum() / (label | wrong).sum()
                loss, before = loss + errors[pixel] * (jaccard - before), jaccard
            classes.append(loss)
        if classes:
            images.append(np.mean(classes))
    return np.mean(images)


def numpy_differences(values, valid, weight=lambda *pixels: 1.0):
    """Sum weighted differences of neighbors of maps (B, H, W), one pair after the other."""
    total = 0.0
    for b, y, x in np.argwhere(valid):
        for other in ((b, y, x + 1), (b, y + 1, x)):
            if other[1] < valid.shape[1] and other[2] < valid.shape[2] and valid[other]:
                total += weight((b, y, x), other) * abs(values[other] - values[b, y, x])
    return total


def numpy_multi_scale_gradient(scales, uses_log, prediction, target, valid):
    change = np.vectorize(log) if uses_log else np.asarray
    error = change(prediction[:, 0]) - change(np.nan_to_num(target[:, 0], nan=1.0))
    total = 0.0
    for k in range(scales):
        mask = valid[:, :: 2**k, :: 2**k]
        if mask.any():
            total += numpy_differences(error[:, :: 2**k, :: 2**k], mask) / mask.sum()
    return total


IMAGE = np.random.default_rng(5).integers(0, 256, (2, 3, *SHAPE[1:])).astype(np.uint8)


def numpy_smoothness(sensitivity, prediction, target, valid):
    image = IMAGE / 255

    def weight(one, other):
        change = image[one[0], :, one[1], one[2]] - image[other[0], :, other[1], other[2]]
        return np.exp(-sensitivity * np.abs(change).mean())

    return numpy_differences(prediction[:, 0], valid, weight) / valid.sum()


class Case(NamedTuple):
    name: str
    kind: str
    options: dict[str, Any]
    reference: Callable[..., float]


def case(name: str, kind: str, reference: Callable[..., float], **options: Any) -> Case:
    return Case(name, kind, options, reference)


CASES: dict[str, Case] = {
    "cross_entropy": case("cross_entropy", "classes", numpy_cross_entropy),
    "cross_entropy weighted": case(
        *("cross_entropy", "classes", partial(numpy_weighted_cross_entropy, 0.1)),
        **{"class_weights": WEIGHTS, "label_smoothing": 0.1},
    ),
    "cross_entropy binary": case(
        *("cross_entropy", "binary", partial(numpy_weighted_cross_entropy, 0.0)),
        class_weights=WEIGHTS[:2],
    ),
    "focal": case("focal", "classes", partial(numpy_focal, 2, [1] * 4)),
    "focal weighted": case(
        *("focal", "classes", partial(numpy_focal, 0.5, WEIGHTS)),
        **{"gamma": 0.5, "class_weights": WEIGHTS},
    ),
    "focal binary": case("focal", "binary", partial(numpy_focal, 3, [1, 1]), gamma=3.0),
    "ohem": case("ohem", "classes", partial(numpy_ohem, 0.7, 0.0625)),
    "ohem minimum": case(
        "ohem", "classes", partial(numpy_ohem, 0.02, 0.3), threshold=0.02, min_kept=0.3
    ),
    "ohem binary": case("ohem", "binary", partial(numpy_ohem, 0.7, 0.0625)),
    "dice": case("dice", "classes", partial(numpy_dice, 0)),
    "dice smooth": case("dice", "classes", partial(numpy_dice, 2), smooth=2.0),
    "dice binary": case("dice", "binary", partial(numpy_dice, 0)),
    "lovasz": case("lovasz", "classes", numpy_lovasz),
    "lovasz binary": case("lovasz", "binary", numpy_lovasz),
    "bce fixed": case("balanced_bce", "binary", numpy_bce(0.95), positive_weight=0.95),
    "bce batch": case("balanced_bce", "binary", numpy_bce(None)),
    "l1": case("l1", "values", numpy_l1),
    "log_l1": case("log_l1", "values", numpy_log_l1),
    "berhu": case("berhu", "values", numpy_berhu),
    "silog": case("silog", "values", numpy_silog),
    "multi_scale_gradient": case(
        "multi_scale_gradient", "values", partial(numpy_multi_scale_gradient, 4, False)
    ),
    "multi_scale_gradient log": case(
        *("multi_scale_gradient", "values", partial(numpy_multi_scale_gradient, 2, True)),
        **{"scales": 2, "log": True},
    ),
    "edge_aware_smoothness": case(
        *("edge_aware_smoothness", "values", partial(numpy_smoothness, 2.0)), edge_sensitivity=2.0
    ),
    "vector l1 elements": case("l1", "directions", numpy_vector_l1("element_mean")),
    "vector l1 pixels": case(
        "l1", "directions", numpy_vector_l1("pixel_mean"), reduction="pixel_mean"
    ),
    "cosine": case("cosine", "directions", numpy_cosine),
    "angular": case("angular", "directions", numpy_angular),
}
LABELS = {
    "classes": LabelInfo("classes", 4, 4),
    "binary": LabelInfo("binary", 1, 2),
    "values": LabelInfo("values", 1),
    "directions": LabelInfo("directions", 3),
}


def create_loss(name: str, kind: str, **options: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Create a loss as a function of (logits, target, valid)."""
    loss: Loss = registry.create("losses", name, LABELS[kind], options=options)
    if not loss.needs_image:
        return loss.compute

    def compute(logits: Tensor, *sample: Tensor) -> Tensor:
        return loss.compute(logits, *sample, image=torch.tensor(IMAGE, device=logits.device))

    return compute


def make_sample(
    kind: str, seed: int = 0, ignored_fraction: float = 0.3
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample (logits, target with ignored pixels, valid)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, LABELS[kind].channels, *SHAPE[1:])).astype(np.float32)
    valid = rng.random(SHAPE) >= ignored_fraction
    if kind in ("classes", "binary"):
        target = rng.integers(0, LABELS[kind].num_ids, SHAPE).astype(np.uint8)
        target[~valid] = IGNORE_INDEX
    else:
        target = unit(rng.normal(size=logits.shape).astype(np.float32))
        if kind == "values":
            target = rng.uniform(0.05, 9, logits.shape).astype(np.float32)
        target = np.where(valid[:, None], target, np.float32(np.nan))
    return torch.from_numpy(logits), torch.from_numpy(target), torch.from_numpy(valid)
