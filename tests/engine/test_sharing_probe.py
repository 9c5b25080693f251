"""Tests of sharing weights in the log and in the plot of a run."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from densemtl.engine.run_log import read_log
from densemtl.runs.train_run import train_experiment
from densemtl.visualization.matrix_history import plot_matrix_history
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.fast_runs import drawn_figures


def read_sharing_lines(folder: Path) -> list[dict[str, float]]:
    return [line for line in read_log(folder / "log.jsonl") if line["kind"] == "sharing"]


@pytest.fixture(scope="module")
def cross_stitch_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross_stitch")
    experiment = make_tiny_experiment("decoder.name=cross_stitch", "optim.lr_scale.fusion=100")
    with drawn_figures():
        train_experiment(experiment, folder, "cpu")
    return folder


def test_sharing_is_logged_at_the_start_and_after_every_epoch(cross_stitch_run: Path) -> None:
    lines = read_sharing_lines(cross_stitch_run)
    assert [line["step"] for line in lines] == [0, 4, 8]
    assert lines[0]["stage 1/semseg<-depth"] == pytest.approx(0.1)
    assert lines[0]["stage 4/depth<-depth"] == pytest.approx(0.9)
    assert lines[2]["stage 1/semseg<-depth"] != pytest.approx(0.1, abs=1e-3)


def test_sharing_is_plotted(cross_stitch_run: Path) -> None:
    image = cv2.imread(str(cross_stitch_run / "sharing.png"))
    assert image is not None
    assert image.std() > 10


def test_attention_masks_are_logged(tmp_path: Path) -> None:
    train_experiment(make_tiny_experiment("decoder.name=mtan", "train.epochs=1"), tmp_path, "cpu")
    first, last = read_sharing_lines(tmp_path)
    masks = [key for key in first if key.startswith("attention/")]
    assert len(masks) == 2 * 4
    assert all(0 < first[key] < 1 for key in masks)
    assert any(first[key] != last[key] for key in masks)


def test_decoder_without_sharing_weights_has_no_log_and_plot(tmp_path: Path) -> None:
    train_experiment(make_tiny_experiment("train.epochs=1"), tmp_path, "cpu")
    assert read_sharing_lines(tmp_path) == []
    assert not (tmp_path / "sharing.png").exists()


@pytest.mark.usefixtures("drawn_figures")
def test_stages_with_slashes_and_missing_values_are_plotted(tmp_path: Path) -> None:
    line = {"kind": "sharing", "time": 0.0, "layer 1/entropy/depth<-entropy": None, "a/x<-y": 0.5}
    file = tmp_path / "sharing.png"
    plot_matrix_history(file, [{"step": 0, **line}, {"step": 0, **line}], "sharing")
    assert cv2.imread(str(file)) is not None
