"""Tests of tools/affinity.py, which measures the affinity of the tasks of a run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from densemtl.errors import UserError
from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import make_tiny_experiment
from tools.affinity import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_experiment(make_tiny_experiment("train.epochs=1"), folder, "cpu")
    return folder


@pytest.mark.usefixtures("drawn_figures")
def test_tool_writes_json_and_figure_to_the_run_folder(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(trained), "--batches", "2", "--device", "cpu"])
    content = json.loads((trained / "affinity.json").read_text())
    assert content["tasks"] == ["semseg", "depth"]
    assert content["batches"] == 2
    assert content["rate"] == 1e-3
    assert len(content["look-ahead"]) == len(content["stage 4"]) == 2
    assert content["stage 4"][0][0] == pytest.approx(1)
    assert cv2.imread(str(trained / "affinity.png")) is not None
    assert "look-ahead" in capsys.readouterr().out


def test_zero_batches_are_an_error_of_one_line(trained: Path) -> None:
    with pytest.raises(UserError) as caught:
        main([str(trained), "--batches", "0", "--device", "cpu"])
    assert str(caught.value) == "--batches 0, --rate 0.001: both must be more than 0"
