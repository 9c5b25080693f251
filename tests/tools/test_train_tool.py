"""tools/train.py as a person uses it: from a shell, killed, mistyped."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from experiments import write_tiny

from densemtl.engine.checkpoint import load_weights

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, str(ROOT / "tools" / "train.py")]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def tool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRAIN, *arguments], cwd=cwd, env=ENV, capture_output=True, text=True, check=False
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(run / "last" / "model.safetensors").tensors


def test_killed_in_the_middle_and_started_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    """SIGKILL once the first checkpoint inside an epoch is there: nothing is told, nothing lost."""
    config = write_tiny(tmp_path)
    command = [
        str(config),
        "train.epochs=5",
        "train.eval_every=5",
        "train.checkpoint_steps=3",
        "head={name: deeplab}",
        "--device",
        "cpu",
    ]
    assert tool(*command, "--output", "whole", cwd=tmp_path).returncode == 0
    process = subprocess.Popen(
        [*TRAIN, *command, "--output", "killed"],
        cwd=tmp_path,
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    state = tmp_path / "killed" / "last" / "state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert state.exists()
    assert not (tmp_path / "killed" / "results.json").exists()
    assert tool(*command, "--output", "killed", cwd=tmp_path).returncode == 0
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_mistake_is_told_at_once_without_a_traceback(tmp_path: Path) -> None:
    config = write_tiny(tmp_path)
    done = tool(
        str(config), "optim.lrr=1", "decoder.name=hard_shring", "tasks=[semsg, depth]", cwd=tmp_path
    )
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 3
    for line, hint in zip(
        sorted(lines), ("decoder.name: ", "optim.lrr: ", "tasks.0: "), strict=True
    ):
        assert line.startswith("error: command line: " + hint)
        assert "did you mean" in line


def test_print_config_reads_back(tmp_path: Path) -> None:
    config = write_tiny(tmp_path)
    first = tool(str(config), "optim.lr=2e-5", "--print-config", cwd=tmp_path)
    assert first.returncode == 0
    assert "lr: 2.0e-05" in first.stdout
    copy = tmp_path / "copy.yaml"
    copy.write_text(first.stdout)
    assert tool(str(copy), "--print-config", cwd=tmp_path).stdout == first.stdout


def test_a_gpu_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = tool(str(write_tiny(tmp_path)), "--device", "cuda", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == (
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
    default_folder = runpy.run_path(TRAIN[1])["default_folder"]
    assert default_folder(Path(config)) == Path(folder)
