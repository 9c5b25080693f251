"""Contract tests of all tasks, and a custom task."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch

from densemtl import registry
from densemtl.errors import ConfigError
from densemtl.tasks.base import Task
from densemtl.tasks.classification import Classification
from densemtl.transforms.geometry import GeometricTransform
from densemtl.types import IGNORE_INDEX

SIZE = (6, 9)
PROTOCOLS = ["survey", "modern"]


def as_target(label: np.ndarray) -> torch.Tensor:
    """Convert a label map in the layout of `Sample` to a batch of one."""
    target = torch.from_numpy(label)[None]
    if not target.is_floating_point():
        return target
    return target.unsqueeze(1) if target.ndim == 3 else target.permute(0, 3, 1, 2)


def logits_of(task: Task, batch: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, task.channels, *SIZE, generator=generator).to(dtype)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decode_has_layout_of_targets_and_full_precision(any_task, batch, dtype):
    decoded = any_task.decode(logits_of(any_task, batch, dtype))
    target = as_target(any_task.make_empty_label(SIZE))
    assert decoded.shape == (batch, *target.shape[1:])
    assert decoded.dtype in (torch.int64, torch.float32)


def test_empty_label_has_no_valid_pixels_and_is_black(any_task):
    empty = any_task.make_empty_label(SIZE)
    assert empty.shape[:2] == SIZE
    assert empty.dtype in (np.uint8, np.float32)
    valid = any_task.compute_valid_mask(as_target(empty))
    assert valid.shape == (1, *SIZE)
    assert valid.dtype == torch.bool
    assert not valid.any()
    assert not any_task.colorize(empty).any()


def test_error_map_of_labels_is_0_and_nan_at_ignored_pixels(any_task, draw_label, rng):
    label = draw_label(any_task, SIZE, rng)
    valid = any_task.compute_valid_mask(as_target(label))[0].numpy()
    errors = any_task.compute_error_map(label, label)
    assert errors.shape == SIZE
    assert errors.dtype == np.float32
    assert np.isnan(errors[~valid]).all()
    np.testing.assert_allclose(errors[valid], 0, atol=1e-3)


def test_error_map_values(make_task):
    def errors(name, prediction, label):
        return (
            make_task(name)
            .compute_error_map(np.array(prediction), np.array(label))
            .ravel()
            .tolist()
        )

    assert errors("semseg", [[0, 1, 2]], np.array([[0, 2, 1]], np.uint8)) == [0, 1, 1]
    assert errors("edge", [[0.25, 0.25]], np.array([[0, 1]], np.uint8)) == [0.25, 0.75]
    assert errors("depth", [[2.0, 1.0]], np.array([[1.5, 3.0]], np.float32)) == [0.5, 2]
    right, up = [1.0, 0, 0], [0, -1.0, 0]
    label = np.array([[right, right]], np.float32)
    assert errors("normals", [[right, up]], label) == pytest.approx([0, 90])


def test_valid_mask_excludes_ignored_pixels(any_task, draw_label, rng):
    label = draw_label(any_task, SIZE, rng)
    empty = label == IGNORE_INDEX if label.dtype == np.uint8 else np.isnan(label)
    expected = ~empty if empty.ndim == 2 else ~empty.any(-1)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(any_task.compute_valid_mask(as_target(label))[0], expected)


def test_only_ignored_pixels_are_black(any_task, draw_label, rng):
    label = draw_label(any_task, SIZE, rng)
    image = any_task.colorize(label)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8
    valid = any_task.compute_valid_mask(as_target(label))[0].numpy()
    np.testing.assert_array_equal(image.any(-1), valid)
    decoded = any_task.decode(logits_of(any_task, 1))[0].numpy()
    layout = decoded if decoded.ndim == 2 else np.moveaxis(decoded, 0, -1)
    assert any_task.colorize(layout.squeeze()).any(-1).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metrics_accept_decoded_predictions(any_task, draw_label, rng, protocol):
    target = as_target(draw_label(any_task, SIZE, rng)).repeat_interleave(2, 0)
    metric = any_task.make_metric(protocol)
    metric.update(any_task.decode(logits_of(any_task)), target)
    scores = metric.compute_dict()
    assert np.isfinite(scores[any_task.get_selection_metric(protocol)])
    final = any_task.make_final_metric(protocol)
    if final is None:
        assert any_task.get_selection_metric(protocol) == any_task.get_primary_metric(protocol)
        return
    final.update(any_task.decode(logits_of(any_task)), target)
    assert np.isfinite(final.compute_dict()[any_task.get_primary_metric(protocol)])


def scored(task, protocol, logits, label) -> dict[str, float]:
    """Compute the values that select the best weights and that Delta_m compares."""
    final = task.make_final_metric(protocol)
    metrics = [task.make_metric(protocol), *([] if final is None else [final])]
    values = {}
    for metric in metrics:
        metric.update(task.decode(logits), label)
        values |= metric.compute_dict()
    return {
        name: values[name]
        for name in (task.get_selection_metric(protocol), task.get_primary_metric(protocol))
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_direction_of_the_primary_metric(any_task, draw_label, rng, protocol):
    """Correct logits have better scores than logits with the opposite sign."""
    label = as_target(draw_label(any_task, SIZE, rng, void=0.0))
    if label.is_floating_point():
        correct = label
    elif any_task.channels == 1:
        correct = 20.0 * (2.0 * label.unsqueeze(1) - 1)
    else:
        correct = 20.0 * torch.nn.functional.one_hot(label.long()).permute(0, 3, 1, 2)
    values = [scored(any_task, protocol, logits, label) for logits in (correct, -correct)]
    higher, lower = values if any_task.higher_is_better else values[::-1]
    assert all(higher[name] > lower[name] for name in higher)


def test_gradient_step_decreases_the_loss(any_task, draw_label, rng):
    target = as_target(draw_label(any_task, SIZE, rng))
    logits = logits_of(any_task, 1).requires_grad_()
    loss = any_task.compute_loss(logits, target)
    loss.backward()
    assert any_task.compute_loss(logits - 0.1 * logits.grad, target) < loss


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        *(("semseg", 1), ("human_parts", 2), ("saliency", 5), ("normals", 10), ("edge", 50)),
        *(("depth", 1), ("classification", 1), ("binary", 1), ("regression", 1), ("direction", 1)),
    ],
)
def test_default_loss_weights(make_task, name, weight):
    assert make_task(name).default_loss_weight == weight


def test_primary_metric_of_saliency_depends_on_protocol(make_task):
    task = make_task("saliency")
    assert [task.get_primary_metric(protocol) for protocol in PROTOCOLS] == ["mIoU", "maxF"]


def test_edge_options_reach_the_metric(make_task):
    """`modern` reads the maps of NYUD-v2 as regions, whose boundary is up to one pixel away."""
    label = torch.zeros(1, 20, 20, dtype=torch.uint8)
    label[0, :, 9:] = 1
    boundary = torch.zeros(1, 20, 20)
    boundary[0, :, 8] = 1
    for protocol, regions in (("survey", False), ("modern", True)):
        metric = make_task("edge", region_label_protocols=["modern"]).make_final_metric(protocol)
        assert metric.compute_image.regions is regions
        metric.update(boundary, label)
        # `modern` fades the pixels of the line near the image border.
        assert (metric.compute_dict()["odsF"] > 90) is regions
    assert (
        make_task("edge", max_distance=0.011).make_final_metric("survey").compute_image.max_distance
        == 0.011
    )
    assert make_task("edge").make_final_metric("survey").compute_image.max_distance == 0.0075


def test_decoded_values(make_task):
    logits = torch.tensor([[[[0.0]], [[3.0]], [[4.0]]]])
    assert make_task("semseg").decode(logits).tolist() == [[[2]]]
    torch.testing.assert_close(
        make_task("normals").decode(logits).flatten(), torch.tensor([0.0, 0.6, 0.8])
    )
    assert make_task("edge").decode(logits[:, :1]).tolist() == [[[0.5]]]
    assert make_task("depth").decode(logits[:, 1:2]).tolist() == [[[[3.0]]]]


def test_loss_options_change_the_loss(make_task, draw_label, rng):
    label = as_target(draw_label(make_task("normals"), SIZE, rng))
    logits = torch.randn(1, 3, *SIZE)
    elements, pixels, cosine = (
        make_task("normals", **options).compute_loss(logits, label).item()
        for options in ({}, {"reduction": "pixel_mean"}, {"loss": "cosine"})
    )
    assert pixels == pytest.approx(3 * elements, rel=1e-5)
    assert cosine not in (elements, pixels)
    label = as_target(draw_label(make_task("edge"), SIZE, rng))
    values = [
        make_task("edge", positive_weight=weight).compute_loss(logits[:, :1], label).item()
        for weight in (0.95, 0.5, None)
    ]
    assert len(set(values)) == 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("semseg", {"class_names": []}, "semseg.class_names"),
        ("semseg", {"class_names": ["a", "a"]}, "class_names: 'a' occurs twice"),
        ("semseg", {"class_names": [str(i) for i in range(256)]}, "at most 255 items"),
        (
            "classification",
            {"class_names": ["a"], "colors": [(1, 2, 3)] * 2},
            "2 colors for 1 classes",
        ),
        ("edge", {"positive_weight": 1.5}, "edge.positive_weight: Input should be less than"),
        ("edge", {"max_distance": 7.5}, "edge.max_distance: Input should be less than 1, not 7.5"),
        ("edge", {"region_label_protocols": ["other"]}, "edge.region_label_protocols"),
        ("regression", {"vis_min": 2.0, "vis_max": 1.0}, "vis_min: 2.0 must be below vis_max"),
        ("direction", {"channels": 4}, "channels: Input should be 2 or 3, not 4"),
        ("depth", {"loss": "l3"}, "depth.loss"),
        ("depth", {"channel": 2}, "channel: unknown key"),
    ],
)
def test_invalid_options_raise_an_error(make_task, name, options, message):
    with pytest.raises(ConfigError, match=message):
        make_task(name, **options)


def test_custom_class_colors(make_task):
    task = make_task(
        "classification", class_names=["sea", "land"], colors=[(0, 0, 255), (0, 255, 0)]
    )
    image = task.colorize(np.array([[0, 1, IGNORE_INDEX]], np.uint8))
    assert image.tolist() == [[[0, 0, 255], [0, 255, 0], [0, 0, 0]]]


def test_colors_of_near_depth_floors_and_salient_pixels(make_task):
    near, far = make_task("depth").colorize(np.float32([[0.2, 9.8]]))[0].astype(int)
    assert near.argmax() == 2
    assert far.argmax() == 0
    floor = make_task("normals").colorize(np.float32([[[0, -1, 0]]]))[0, 0].astype(int)
    assert floor.argmax() == 1
    negative, positive = make_task("saliency").colorize(np.float32([[0, 1]]))[0].astype(int)
    assert positive.sum() > negative.sum() + 300


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (2, 98)),
        ({"vis_min": -1.0, "vis_max": 3.0}, (-1, 3)),
        ({"vis_max": 3.0}, (0, 3)),
        ({"vis_min": -1.0}, (-1, 1)),
    ],
)
def test_color_range_of_regression(make_task, options, expected):
    values = np.arange(1, 100, dtype=np.float32)[None]
    values[0, 0], values[0, 98] = -np.inf, np.nan
    task = make_task("regression", **options)
    assert task.compute_color_range(values) == pytest.approx(expected, abs=1)
    fixed = task.with_color_range((5.0, 6.0))
    assert fixed.compute_color_range(values) == (5, 6)
    assert task.compute_color_range(values) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("values", [[[2.0, 2.0]], [[0.0, 0.0]], [[np.nan, np.nan]]])
def test_maps_of_a_single_value_have_a_color_range(make_task, values):
    low, high = make_task("depth").compute_color_range(np.float32(values))
    assert low < high


def perfect_logits(task: Task, label: np.ndarray) -> torch.Tensor:
    """Return logits that decode to a label map without ignored pixels."""
    target = as_target(label)
    if target.is_floating_point():
        return target
    ids = torch.arange(max(task.channels, 2)).view(1, -1, 1, 1)
    return 9.0 * (ids == target[:, None]).float()[:, -task.channels :]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_inverse_transform_logits_inverts_transform_label(any_task, draw_label, rng, flip, scale):
    label = draw_label(any_task, SIZE, rng, void=0)
    warped = any_task.transform_label(
        label, GeometricTransform((0, 0, *SIZE), SIZE, scale, flip=flip)
    )
    restored = any_task.decode(
        any_task.inverse_transform_logits(perfect_logits(any_task, warped), scale, flip)
    )
    expected = any_task.decode(perfect_logits(any_task, label))
    torch.testing.assert_close(restored, expected)


class Materials(Classification):
    """Custom task."""

    default_loss_weight: ClassVar[float] = 3.0

    def __init__(self, name: str, *, shiny: bool = False) -> None:
        names = ["wood", "metal", "glass"] if shiny else ["wood", "metal"]
        super().__init__(name, class_names=names)


def test_custom_task_is_created_by_name(monkeypatch):
    module = ModuleType("toybox")
    module.Materials = Materials
    monkeypatch.setitem(sys.modules, "toybox", module)
    task = registry.create("tasks", "toybox:Materials", "material", options={"shiny": True})
    assert (task.name, task.channels, task.default_loss_weight) == ("material", 3, 3.0)
    label = np.array([[0, 2], [IGNORE_INDEX, 1]], np.uint8)
    mirrored = task.transform_label(label, GeometricTransform((0, 0, 2, 2), (2, 2), flip=True))
    assert mirrored.tolist() == [[2, 0], [1, IGNORE_INDEX]]
    metric = task.make_metric("modern")
    metric.update(torch.from_numpy(label)[None], torch.from_numpy(label)[None])
    assert metric.compute_dict()["IoU/glass"] == 100
