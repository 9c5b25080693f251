"""Tests of the figures of training curves and balancing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from densemtl.visualization.training_curves import plot_balancing, plot_training_curves

pytestmark = pytest.mark.usefixtures("drawn_figures")

TRAIN = [{"step": step, "kind": "train", "depth": 3.0 / step} for step in (1, 2)]
VAL = [{"step": 2, "kind": "val", "depth/rmse": 2.0}]


def has_color(file: Path) -> list[bool]:
    """Return whether the upper and the lower half of a figure contain colored curves."""
    image = cv2.imread(str(file)).astype(int)
    colored = np.ptp(image, axis=2) > 80
    half = len(image) // 2
    return [bool(part.any()) for part in (colored[:half], colored[half:])]


@pytest.mark.parametrize(
    ("records", "expected"),
    [([], [False, False]), (TRAIN, [True, False]), (VAL, [False, True]), (TRAIN + VAL, [True] * 2)],
)
def test_training_curves_show_losses_above_metrics(
    tmp_path: Path, records: list[dict[str, Any]], expected: list[bool]
) -> None:
    plot_training_curves(tmp_path / "curves.png", records, {"depth": "rmse"})
    assert has_color(tmp_path / "curves.png") == expected


def test_losses_of_teachers_have_their_own_column(tmp_path: Path) -> None:
    plot_training_curves(tmp_path / "one.png", [], {"depth": "rmse"})
    records = [{"step": step, "kind": "train", "distill/clip": 1.0 / step} for step in (1, 2)]
    plot_training_curves(tmp_path / "two.png", records, {"depth": "rmse"})
    one, two = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "two.png"))
    assert two.shape[1] == 2 * one.shape[1]
    assert has_color(tmp_path / "two.png") == [True, False]


def test_training_curves_have_one_column_per_task(tmp_path: Path) -> None:
    plot_training_curves(tmp_path / "one.png", [], {"depth": "rmse"})
    plot_training_curves(tmp_path / "two.png", [], {"depth": "rmse", "semseg": "mIoU"})
    one, two = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "two.png"))
    assert two.shape[1] == 2 * one.shape[1]


WEIGHTS = [{"step": step, "kind": "train", "weight/depth": step, "depth": 1.0} for step in (1, 2)]
GRADIENT_VALUES = {"norm/depth": 0.1, "norm/edge": 3.0, "cosine/depth~edge": -0.5}


def test_plot_balancing_has_one_panel_per_logged_quantity(tmp_path: Path) -> None:
    plot_balancing(tmp_path / "losses.png", WEIGHTS)
    plot_balancing(tmp_path / "gradients.png", [record | GRADIENT_VALUES for record in WEIGHTS])
    one, three = (cv2.imread(str(tmp_path / name)) for name in ("losses.png", "gradients.png"))
    assert three.shape[1] == pytest.approx(3 * one.shape[1], rel=0.01)
    assert has_color(tmp_path / "losses.png")[0]


def test_plot_balancing_writes_no_file_without_weights(tmp_path: Path) -> None:
    plot_balancing(tmp_path / "none.png", TRAIN + VAL)
    assert list(tmp_path.iterdir()) == []
