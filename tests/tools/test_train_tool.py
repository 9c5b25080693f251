"""tools/train.py as a person uses it: from a shell, killed, mistyped."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from densemtl.engine.checkpoint import load_weights
from tests.helpers.experiments import write_tiny_config
from tests.helpers.forked_tools import start_tool

TRAIN = Path(__file__).parents[2] / "tools" / "train.py"


def train(folder: Path, *arguments: object) -> tuple[int, str]:
    """Exit status, and all that was said."""
    process = start_tool(folder, "train.py", *arguments)
    return process.wait(), process.read_output()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(run / "last" / "model.safetensors").tensors


def test_killed_in_the_middle_and_started_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    """SIGKILL once the first checkpoint inside an epoch is there: nothing is told, nothing lost.

    What goes on is a process started afresh, whose hashes of names are others.
    """
    config = write_tiny_config(tmp_path)
    command = [
        str(config),
        "train.epochs=5",
        "train.eval_every=5",
        "train.checkpoint_every_steps=3",
        "head={name: deeplabv3}",
        "--device",
        "cpu",
    ]
    assert train(tmp_path, *command, "--output", "whole")[0] == 0
    killed = start_tool(tmp_path, "train.py", *command, "--output", "killed")
    killed.kill_when_exists(tmp_path / "killed" / "last" / "state.pt")
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "results.json").exists()
    again = [sys.executable, str(TRAIN), *command, "--output", "killed"]
    alike = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(again, cwd=tmp_path, env=alike, capture_output=True, check=True)
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_mistake_is_told_at_once_without_a_traceback(tmp_path: Path) -> None:
    mistakes = ("optim.lrr=1", "decoder.name=hard_shring", "tasks=[semsg, depth]")
    status, said = train(tmp_path, write_tiny_config(tmp_path), *mistakes)
    assert status == 2
    lines = said.strip().splitlines()
    assert len(lines) == 3
    for line, hint in zip(
        sorted(lines), ("decoder.name: ", "optim.lrr: ", "tasks.0: "), strict=True
    ):
        assert line.startswith("error: command line: " + hint)
        assert "did you mean" in line


def test_print_config_reads_back(tmp_path: Path) -> None:
    status, said = train(tmp_path, write_tiny_config(tmp_path), "optim.lr=2e-5", "--print-config")
    assert status == 0
    assert "lr: 2.0e-05" in said
    copy = tmp_path / "copy.yaml"
    copy.write_text(said)
    assert train(tmp_path, copy, "--print-config") == (0, said)


def test_a_gpu_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    status, said = train(tmp_path, write_tiny_config(tmp_path), "--device", "cuda")
    assert status == 2
    assert said.strip() == (
        "error: --device cuda: no usable GPU here; leave it out or say --device cpu"
    )


@pytest.mark.parametrize(
    ("config", "folder"),
    [
        ("configs/nyud/hrnet18/pad_net.yaml", "runs/nyud/hrnet18/pad_net"),
        ("/somewhere/configs/nyud/small.yaml", "runs/nyud/small"),
        ("/home/me/mine.yaml", "runs/mine"),
    ],
)
def test_runs_lie_as_their_configurations_do(config: str, folder: str) -> None:
    default_folder = runpy.run_path(str(TRAIN))["get_default_folder"]
    assert default_folder(Path(config)) == Path(folder)
