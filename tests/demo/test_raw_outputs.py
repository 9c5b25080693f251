"""Files of raw maps: exact values, readable by the evaluation of prediction files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from densemtl.demo.raw_outputs import to_millimeters, write_raw_outputs
from densemtl.errors import DataError
from densemtl.evaluation import prediction_files
from densemtl.evaluation.prediction_formats import ReadOptions


def test_to_millimeters_rounds_and_clips() -> None:
    meters = np.array([[0, 0.0004, 0.0006, 2.3456, 65.535, 80]], np.float32)
    np.testing.assert_array_equal(to_millimeters(meters), [[0, 0, 1, 2346, 65535, 65535]])
    np.testing.assert_array_equal(to_millimeters(np.array([[np.nan, -1, np.inf]])), [[0, 0, 0]])


def test_written_maps_are_read_unchanged(make_task, draw_label, rng, tmp_path: Path) -> None:
    size = (7, 9)
    tasks = [make_task(name) for name in ("semseg", "depth", "normals", "saliency")]
    maps = {task.name: draw_label(task, size, rng, void=0) for task in tasks}
    maps["saliency"] = rng.random(size).astype(np.float32)
    write_raw_outputs(tmp_path, tasks, "room/one", maps)
    for task in tasks:
        file = prediction_files.find_predictions(tmp_path, task.name)["room/one"]
        read = prediction_files.read_prediction(file, task, size, ReadOptions())
        np.testing.assert_allclose(read, maps[task.name], rtol=1e-6)
    png = cv2.imread(str(tmp_path / "depth/room/one.png"), cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint16
    np.testing.assert_allclose(png / 1000, maps["depth"], atol=0.00051)
    normals = tmp_path / "normals/room/one.png"
    back = prediction_files.read_prediction(normals, tasks[2], size, ReadOptions())
    np.testing.assert_allclose(back, maps["normals"], atol=1 / 65535)


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", ""])
def test_name_outside_the_folder_is_data_error(make_task, tmp_path: Path, name: str) -> None:
    depth = np.ones((2, 2), np.float32)
    with pytest.raises(DataError, match="would lie outside"):
        write_raw_outputs(tmp_path / "maps", [make_task("depth")], name, {"depth": depth})
    assert list(tmp_path.iterdir()) == []
