"""Color ranges: shared by prediction and label, and smoothed over the frames of a video."""

from __future__ import annotations

import numpy as np
import pytest

from densemtl.visualization.color_range import ColorRangeSmoother, describe_limits, fit_color_range

NEAR, FAR = np.linspace(1, 2, 50, dtype=np.float32), np.linspace(5, 9, 50, dtype=np.float32)


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        (FAR, FAR),
        (None, NEAR),
        (np.full_like(FAR, np.nan), NEAR),
        (np.append(np.full(499, np.nan, np.float32), np.float32(7)), NEAR),
        (np.append(np.full(499, np.inf, np.float32), np.float32(7)), NEAR),
        (np.append(np.full(50, np.nan, np.float32), FAR), FAR),
    ],
)
def test_valid_labels_determine_the_range(make_task, label, shown):
    task = make_task("depth")
    fitted = fit_color_range(task, NEAR[None], None if label is None else label[None])
    for values in (NEAR, FAR):
        assert fitted.compute_color_range(values[None]) == task.compute_color_range(shown[None])


def test_tasks_without_range_and_tasks_with_fixed_range_stay(make_task):
    labels = np.zeros((2, 2), np.uint8)
    assert fit_color_range(make_task("semseg"), labels, labels).compute_color_range(labels) is None
    fixed = fit_color_range(make_task("depth", max_depth=8.0), NEAR[None], FAR[None])
    assert fixed.compute_color_range(NEAR[None]) == (0, 8)


def test_ranges_of_a_video_change_slowly(make_task):
    tasks, smoother = [make_task("depth"), make_task("semseg")], ColorRangeSmoother()
    classes = np.zeros((1, 50), np.uint8)
    ranges = [
        smoother.fit(tasks, {"depth": values[None], "semseg": classes})[0].compute_color_range(FAR)
        for values in (NEAR, *[FAR] * 60)
    ]
    first, second, last = ranges[0], ranges[1], ranges[-1]
    assert first == make_task("depth").compute_color_range(NEAR[None])
    assert first[0] < second[0] < first[0] + 0.5
    assert last == pytest.approx(make_task("depth").compute_color_range(FAR[None]), abs=0.02)


def test_limits_have_the_unit_of_the_task(make_task):
    assert describe_limits(make_task("depth"), (0.71234, 5.2)) == ["0.712 m", "5.2 m"]
    assert describe_limits(make_task("regression"), (0, 12.3456)) == ["0", "12.3"]
