"""The picture of a run's course."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from densemtl.curves import draw_curves

LINES = [
    {"step": 1, "kind": "train", "depth": 3.0},
    {"step": 2, "kind": "train", "depth": 1.0},
    {"step": 2, "kind": "val", "depth/rmse": 2.0},
]


def drawn(file: Path) -> np.ndarray:
    return cv2.imread(str(file)).astype(int)


def test_shows_losses_and_metrics(tmp_path: Path) -> None:
    draw_curves(tmp_path / "curves.png", LINES, {"depth": "rmse"})
    draw_curves(tmp_path / "fewer.png", LINES[:2], {"depth": "rmse"})
    picture, fewer = drawn(tmp_path / "curves.png"), drawn(tmp_path / "fewer.png")
    half = len(picture) // 2
    assert picture.shape == fewer.shape
    changed = (picture != fewer).any(axis=(1, 2))
    assert changed[half:].sum() > changed[:half].sum() + 50


def test_a_run_that_has_logged_nothing_still_has_a_picture(tmp_path: Path) -> None:
    draw_curves(tmp_path / "curves.png", [], {"semseg": "mIoU", "depth": "rmse"})
    assert drawn(tmp_path / "curves.png").shape[1] > 500
