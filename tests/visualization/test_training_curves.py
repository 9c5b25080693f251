"""The picture of a run's course."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from densemtl.visualization.training_curves import plot_balancing, plot_training_curves

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
    plot_training_curves(tmp_path / "curves.png", lines, {"depth": "rmse"})
    assert inked(tmp_path / "curves.png") == shown


def test_one_column_a_task(tmp_path: Path) -> None:
    plot_training_curves(tmp_path / "one.png", [], {"depth": "rmse"})
    plot_training_curves(tmp_path / "two.png", [], {"depth": "rmse", "semseg": "mIoU"})
    one, two = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "two.png"))
    assert two.shape[1] == 2 * one.shape[1]


WEIGHTS = [{"step": step, "kind": "train", "weight/depth": step, "depth": 1.0} for step in (1, 2)]
MEASURES = {"norm/depth": 0.1, "norm/edge": 3.0, "cosine/depth~edge": -0.5}


def test_one_panel_for_weights_and_three_where_gradients_were_weighed(tmp_path: Path) -> None:
    plot_balancing(tmp_path / "losses.png", WEIGHTS)
    plot_balancing(tmp_path / "gradients.png", [line | MEASURES for line in WEIGHTS])
    one, three = (cv2.imread(str(tmp_path / name)) for name in ("losses.png", "gradients.png"))
    assert three.shape[1] == pytest.approx(3 * one.shape[1], rel=0.01)
    assert inked(tmp_path / "losses.png")[0]


def test_no_picture_where_nothing_was_weighed(tmp_path: Path) -> None:
    plot_balancing(tmp_path / "none.png", TRAIN + VAL)
    assert list(tmp_path.iterdir()) == []
