"""The picture of a run's course."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from densemtl.curves import draw_curves

TRAIN = [{"step": step, "kind": "train", "depth": 3.0 / step} for step in (1, 2)]
VAL = [{"step": 2, "kind": "val", "depth/rmse": 2.0}]


def inked(file: Path) -> list[bool]:
    """Whether something is drawn in colour in the upper and in the lower half."""
    picture = cv2.imread(str(file)).astype(int)
    coloured = np.ptp(picture, axis=2) > 80
    half = len(picture) // 2
    return [bool(part.any()) for part in (coloured[:half], coloured[half:])]


@pytest.mark.parametrize(
    ("lines", "shown"),
    [([], [False, False]), (TRAIN, [True, False]), (VAL, [False, True]), (TRAIN + VAL, [True] * 2)],
)
def test_losses_above_and_metrics_below(
    tmp_path: Path, lines: list[dict[str, Any]], shown: list[bool]
) -> None:
    draw_curves(tmp_path / "curves.png", lines, {"depth": "rmse"})
    assert inked(tmp_path / "curves.png") == shown


def test_one_column_a_task(tmp_path: Path) -> None:
    draw_curves(tmp_path / "one.png", [], {"depth": "rmse"})
    draw_curves(tmp_path / "two.png", [], {"depth": "rmse", "semseg": "mIoU"})
    one, two = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "two.png"))
    assert two.shape[1] == 2 * one.shape[1]
