"""Tests of tools/train.py from the command line: resume after SIGKILL, invalid arguments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from densemtl.config.shipped_configs import get_default_folder
from densemtl.engine.weights_file import load_weights
from tests.helpers.experiments import write_tiny_config
from tests.helpers.forked_tools import start_tool

TRAIN = Path(__file__).parents[2] / "tools" / "train.py"


def train(folder: Path, *arguments: object) -> tuple[int, str]:
    """Run the tool; return its exit status and output."""
    process = start_tool(folder, "train.py", *arguments)
    return process.wait(), process.read_output()


def load_tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(run / "last" / "model.safetensors").tensors


def test_resume_after_sigkill_is_bit_exact(tmp_path: Path) -> None:
    """Kill the run after its first checkpoint inside an epoch, and resume in a new interpreter.

    The new interpreter has another seed of string hashes.
    """
    config = write_tiny_config(tmp_path)
    command = [
        str(config),
        "train.epochs=3",
        "train.eval_every=3",
        "train.checkpoint_every_steps=3",
        "head={name: deeplabv3}",
        "--device",
        "cpu",
    ]
    assert train(tmp_path, *command, "--output", "uninterrupted")[0] == 0
    killed = start_tool(tmp_path, "train.py", *command, "--output", "killed")
    killed.kill_when_exists(tmp_path / "killed" / "last" / "state.pt")
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "results.json").exists()
    resume = [sys.executable, str(TRAIN), *command, "--output", "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(resume, cwd=tmp_path, env=environment, capture_output=True, check=True)
    expected, resumed = load_tensors(tmp_path / "uninterrupted"), load_tensors(tmp_path / "killed")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_all_mistakes_are_reported_together_without_a_traceback(tmp_path: Path) -> None:
    mistakes = ("optim.lrr=1", "decoder.name=hard_shring", "tasks=[semsg, depth]")
    status, output = train(tmp_path, write_tiny_config(tmp_path), *mistakes)
    assert status == 2
    lines = output.strip().splitlines()
    assert len(lines) == 3
    for line, hint in zip(
        sorted(lines), ("decoder.name: ", "optim.lrr: ", "tasks.0: "), strict=True
    ):
        assert line.startswith("error: command line: " + hint)
        assert "did you mean" in line


def test_printed_config_can_be_loaded(tmp_path: Path) -> None:
    status, output = train(tmp_path, write_tiny_config(tmp_path), "optim.lr=2e-5", "--print-config")
    assert status == 0
    assert "lr: 2.0e-05" in output
    copy = tmp_path / "copy.yaml"
    copy.write_text(output)
    assert train(tmp_path, copy, "--print-config") == (0, output)


def test_missing_gpu_is_reported_in_one_line(tmp_path: Path) -> None:
    status, output = train(tmp_path, write_tiny_config(tmp_path), "--device", "cuda")
    assert status == 2
    assert output.strip() == (
        "error: --device cuda: no usable GPU found; omit it or use --device cpu"
    )


@pytest.mark.parametrize(
    ("config", "folder"),
    [
        ("configs/nyud/hrnet18/pad_net.yaml", "runs/nyud/hrnet18/pad_net"),
        ("/somewhere/configs/nyud/small.yaml", "runs/nyud/small"),
        ("/home/me/mine.yaml", "runs/mine"),
    ],
)
def test_default_run_folder_mirrors_the_configuration_path(config: str, folder: str) -> None:
    assert get_default_folder(Path(config)) == Path(folder)
