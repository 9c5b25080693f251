"""Tests of panels: position, size and color of each map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from densemtl.ops.layouts import to_hwc
from densemtl.visualization import panels
from densemtl.visualization.color_range import BAR_HEIGHT, fit_color_range
from densemtl.visualization.panels import draw_prediction_panel, overlay, stack_vertically

SIZE = (20, 60)
TITLE, GAP = panels._TITLE_HEIGHT, panels._GAP
BAR = BAR_HEIGHT + GAP


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)


@pytest.fixture
def tasks(make_task):
    return [make_task(name) for name in ("semseg", "depth", "normals")]


def crop_cell(panel, row: int, column: int):
    """Return the part of a panel that shows one map."""
    top = GAP + row * (SIZE[0] + TITLE + GAP) + TITLE
    left = GAP + column * (SIZE[1] + GAP)
    return panel[top : top + SIZE[0], left : left + SIZE[1]]


def test_panel_shows_image_and_predictions_above_labels(image, tasks, draw_label, rng):
    predictions = {task.name: draw_label(task, SIZE, rng, void=0) for task in tasks}
    targets = {task.name: draw_label(task, SIZE, rng) for task in tasks}
    panel = draw_prediction_panel(image, predictions, targets, tasks)
    assert panel.dtype == np.uint8
    assert panel.shape == (
        GAP + 2 * (SIZE[0] + TITLE + GAP) + BAR,
        GAP + 4 * (SIZE[1] + GAP),
        3,
    )
    np.testing.assert_array_equal(crop_cell(panel, 0, 0), image)
    for column, task in enumerate(tasks, start=1):
        prediction, target = predictions[task.name], targets[task.name]
        shown = fit_color_range(task, prediction, target)
        np.testing.assert_array_equal(crop_cell(panel, 0, column), shown.colorize(prediction))
        np.testing.assert_array_equal(crop_cell(panel, 1, column), task.colorize(target))


def test_bar_below_depth_shows_the_colors_and_limits_of_the_label(image, tasks):
    label = np.linspace(1, 3, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)

    def draw_bar(prediction, label):
        return draw_prediction_panel(image, {"depth": prediction}, {"depth": label}, tasks)[-BAR:]

    bar = draw_bar(label, label)
    np.testing.assert_array_equal(bar, draw_bar(label * 3, label))
    assert (bar != draw_bar(label, label * 3))[BAR_HEIGHT // 2 :].any()
    left = 2 * GAP + SIZE[1]
    colors = tasks[1].colorize(np.linspace(1, 3, SIZE[1], dtype=np.float32)[None])[0]
    np.testing.assert_allclose(bar[0, left : left + SIZE[1]], colors, atol=12)


def test_cell_of_a_missing_label_is_empty(image, tasks, draw_label, rng):
    predictions = {task.name: draw_label(task, SIZE, rng, void=0) for task in tasks}
    panel = draw_prediction_panel(image, predictions, {"semseg": predictions["semseg"]}, tasks)
    assert (crop_cell(panel, 1, 1) != panels._BACKGROUND).any()
    assert (crop_cell(panel, 1, 2) == panels._BACKGROUND).all()


def test_panel_without_labels_has_one_row_of_predicted_tasks(image, tasks, draw_label, rng):
    predictions = {"depth": draw_label(tasks[1], SIZE, rng, void=0), "other": image}
    panel = draw_prediction_panel(image, predictions, None, tasks)
    assert panel.shape[:2] == (GAP + SIZE[0] + TITLE + GAP + BAR, GAP + 2 * (SIZE[1] + GAP))


def test_predictions_are_resized_to_the_image(image, tasks):
    small = np.arange(6, dtype=np.uint8).reshape(2, 3) % 3
    shown = crop_cell(draw_prediction_panel(image, {"semseg": small}, None, tasks), 0, 1)
    np.testing.assert_array_equal(shown, tasks[0].colorize(small.repeat(10, 0).repeat(20, 1)))


@pytest.mark.parametrize(
    ("shape", "layout"), [((4, 5), (4, 5)), ((1, 4, 5), (4, 5)), ((3, 4, 5), (4, 5, 3))]
)
def test_to_hwc_moves_channels_to_the_end(shape, layout):
    decoded = torch.rand(shape, requires_grad=True)
    array = to_hwc(decoded)
    assert array.shape == layout
    assert array[2, 3].tolist() == decoded[..., 2, 3].squeeze().tolist()


def test_stack_vertically_pads_to_the_widest_image(image):
    stacked = stack_vertically([image, image[:, :30]])
    assert stacked.shape == (2 * SIZE[0], SIZE[1], 3)
    np.testing.assert_array_equal(stacked[: SIZE[0]], image)
    np.testing.assert_array_equal(stacked[SIZE[0] :, :30], image[:, :30])
    assert (stacked[SIZE[0] :, 30:] == panels._BACKGROUND).all()


def test_overlay_equals_a_hand_calculation():
    image = np.array([[[0, 100, 255], [10, 20, 30]]], np.uint8)
    colors = np.array([[[200, 0, 255], [110, 21, 30]]], np.uint8)
    np.testing.assert_array_equal(overlay(image, colors, 0), image)
    np.testing.assert_array_equal(overlay(image, colors, 1), colors)
    quarter = [[[50, 75, 255], [35, 20, 30]]]
    np.testing.assert_array_equal(overlay(image, colors, 0.25), quarter)
    np.testing.assert_array_equal(overlay(image, colors[:, :1], 0.5)[0, 1], [105, 10, 142])


def test_panel_with_alpha_blends_maps_with_the_image(image, tasks, draw_label, rng):
    maps = {task.name: draw_label(task, SIZE, rng, void=0) for task in tasks}
    panel = draw_prediction_panel(image, maps, maps, tasks, 0.5)
    np.testing.assert_array_equal(crop_cell(panel, 0, 0), image)
    for column, task in enumerate(tasks, start=1):
        mean = (image.astype(int) + task.colorize(maps[task.name])) / 2
        for row in (0, 1):
            np.testing.assert_allclose(crop_cell(panel, row, column), mean, atol=0.5)
