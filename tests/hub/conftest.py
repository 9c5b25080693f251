"""A trained run that all tests of publication share."""

from __future__ import annotations

from pathlib import Path

import pytest

from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import make_tiny_experiment

TINY = ("train.epochs=1", "baselines=auto", "tasks=[semseg, normals]")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home") / "alice" / "tiny"
    train_experiment(make_tiny_experiment(*TINY), folder, "cpu")
    return folder
