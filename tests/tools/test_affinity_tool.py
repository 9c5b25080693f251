"""The tool that tells how the tasks of a run get on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from experiments import tiny

from densemtl.run import run

TOOL = Path(__file__).parents[2] / "tools" / "affinity.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run(tiny("train.epochs=1"), folder, "cpu")
    return folder


def call(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, args), "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_numbers_and_picture_lie_in_the_run(trained: Path) -> None:
    done = call(trained, "--batches", 2)
    assert done.returncode == 0, done.stderr
    told = json.loads((trained / "affinity.json").read_text())
    assert told["tasks"] == ["semseg", "depth"]
    assert told["batches"] == 2
    assert told["rate"] == 1e-3
    assert len(told["look-ahead"]) == len(told["stage 4"]) == 2
    assert told["stage 4"][0][0] == pytest.approx(1)
    assert cv2.imread(str(trained / "affinity.png")) is not None
    assert "look-ahead" in done.stdout


def test_no_batch_is_an_error_of_one_line(trained: Path) -> None:
    done = call(trained, "--batches", 0)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: --batches 0, --rate 0.001: both must be more than 0"
    ]
