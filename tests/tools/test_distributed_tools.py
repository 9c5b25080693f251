"""Tests that tools/train.py and tools/evaluate.py give the same results on two ranks as on one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from densemtl.engine.run_log import read_log
from densemtl.engine.trainer import train
from densemtl.engine.weights_file import load_weights
from densemtl.factory import build_splits
from densemtl.results.results import load_results
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from tests.helpers.experiments import make_tiny_experiment, write_tiny_config
from tests.helpers.forked_tools import start_forked
from tests.helpers.two_ranks import start_tool_on_two_ranks, wait_for_both

IGNORED_KEYS = {"kind", "time", "images_per_second"}
"""Keys of log lines that are not compared."""

GRADIENT_PREFIXES = ("weight/", "norm/", "cosine/")
"""Log values that depend on gradients, and are as accurate as a float32 backward pass."""

FIVE_IMAGES = "data={name: synthetic, size: [32, 40], train_images: 9, val_images: 5}"
"""Two ranks evaluate three and two images; the ninth training image does not fill a batch."""

SGD = "optim={name: sgd, lr: 1e-4}"
"""Adam turns gradients that are only rounding errors into full steps. With larger learning rates,
even a different memory layout in one process gives equally large differences."""

RECIPES = {
    "hard_sharing": (
        *("train.grad_accum_steps=2", "train.max_grad_norm=1", "train.ema_decay=0.9"),
        "loader.num_workers=1",
    ),
    "checkpointing": (
        *("train.grad_checkpointing=true", SGD, "train.epochs=1"),
        *("train.sequential_heads=true", "train.async_updates={batch_sizes: {depth: 4}}"),
    ),
    "pad_net": (
        "decoder={name: pad_net, width: 8}",
        "balancing={name: uncertainty}",
        SGD,
        "train.epochs=1",
    ),
    "aux_losses": (
        "decoder={name: mmoe, load_balance: 0.1}",
        "tasks=[semseg, {name: depth, loss: berhu}, {name: edge, positive_weight: null}]",
        "loader={batch_size: 4, eval_batch_size: 2, num_workers: 0}",
        SGD,
    ),
    "feature_gradients": ("balancing={name: mgda, scope: features}", SGD),
    "parameter_gradients": ("balancing={name: mgda, scope: parameters}", SGD),
    "curriculum": (  # the ranks train both tasks in turn to choose the first one
        "curriculum={phases: [{until: 0.5, tasks: 1}, {until: 1}], ramp: 0.2, anchor: 1,"
        " probe_steps: 2}",
        SGD,
    ),
    "relationship": ("relationship={weight: 10, every: 2, update: [task, output]}", SGD),
    "distill": (
        "distill={teachers: [{name: test_vit, pretrained: false}], weight: 0.1}",
        *("train.max_grad_norm=1", SGD, "train.epochs=1"),
    ),
    "fsdp": ("train.fsdp=true", "train.ema_decay=0.9", "balancing={name: uncertainty}", SGD),
}


def train_on_two_ranks(folder: Path, output: str, *overrides: str) -> str:
    """Train on two ranks; return the output of both."""
    config = write_tiny_config(folder)
    return wait_for_both(
        start_tool_on_two_ranks(
            folder, "train.py", config, *overrides, "--device", "cpu", "--output", output
        )
    )


def train_in_this_process(folder: Path, *overrides: str, max_steps: int | None = None) -> None:
    experiment = make_tiny_experiment(*overrides)
    execution = make_execution_config(experiment.train, "cpu")
    train(build_training_run(experiment, build_splits(experiment), folder, execution), max_steps)


def read_lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [line for line in read_log(folder / "log.jsonl") if line["kind"] == kind]
    return [{key: line[key] for key in line.keys() - IGNORED_KEYS} for line in lines]


def read_losses(folder: Path) -> dict[int, tuple[float, float]]:
    """Return {step: losses} only; a resumed run logs other learning rates at its last step."""
    return {line["step"]: (line["semseg"], line["depth"]) for line in read_lines(folder, "train")}


def assert_equal_logs(first: Path, second: Path) -> None:
    first_lines, second_lines = read_lines(first, "train"), read_lines(second, "train")
    assert len(first_lines) >= 4
    for line, other in zip(first_lines, second_lines, strict=True):
        inexact = {name for name in line if name == "total" or name.startswith(GRADIENT_PREFIXES)}
        for names, tolerance in ((line.keys() - inexact, 1e-5), (inexact, 1e-4)):
            expected = {name: other[name] for name in names}
            actual = {name: line[name] for name in names}
            assert actual == pytest.approx(expected, rel=tolerance, abs=1e-6), line["step"]
    for line, other in zip(read_lines(first, "val"), read_lines(second, "val"), strict=True):
        assert line == pytest.approx(other, rel=1e-3, nan_ok=True), line["step"]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_training_on_two_ranks_equals_one_process_with_the_joint_batch(
    tmp_path: Path, recipe: tuple[str, ...]
) -> None:
    overrides = (FIVE_IMAGES, *recipe)
    output = train_on_two_ranks(tmp_path, "two", *overrides)
    train_experiment(make_tiny_experiment(*overrides), tmp_path / "one", "cpu")
    assert_equal_logs(tmp_path / "one", tmp_path / "two")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names
    assert output.count("weights, results and figures: two") == 1
    results = load_results(tmp_path / "two")
    assert (results.images, results.complete) == (5, True)


def test_two_ranks_evaluate_every_image_once(tmp_path: Path) -> None:
    """Counts are exact, and sums of floats differ by rounding; each rank saves its predictions."""
    train_experiment(make_tiny_experiment(FIVE_IMAGES), tmp_path / "run", "cpu")
    options = ("--device", "cpu", "--output", "two.json", "--save-predictions", "maps")
    output = wait_for_both(start_tool_on_two_ranks(tmp_path, "evaluate.py", "run", *options))
    assert output.count("results: two.json") == 1
    expected, actual = load_results(tmp_path / "run"), load_results(tmp_path / "two.json")
    assert expected.weights_hash == actual.weights_hash
    for task, result in expected.tasks.items():
        metrics = actual.tasks[task].metrics
        assert metrics["images"] == 5
        assert metrics == pytest.approx(result.metrics, rel=1e-9, nan_ok=True)
    assert expected.tasks["semseg"].metrics["mIoU"] == actual.tasks["semseg"].metrics["mIoU"]
    for task in ("semseg", "depth"):
        assert len(list((tmp_path / "maps" / task).iterdir())) == 5


@pytest.mark.parametrize("fsdp", ["false", "true"])
def test_run_resumes_with_another_number_of_ranks(tmp_path: Path, fsdp: str) -> None:
    overrides = ("train.epochs=3", "train.ema_decay=0.9", f"train.fsdp={fsdp}")
    train_in_this_process(tmp_path / "resumed", *overrides, max_steps=3)
    train_on_two_ranks(tmp_path, "resumed", *overrides, "--max-steps", "7")
    train_in_this_process(tmp_path / "resumed", "train.epochs=3", "train.ema_decay=0.9")
    train_in_this_process(tmp_path / "one", "train.epochs=3", "train.ema_decay=0.9")
    actual, expected = read_losses(tmp_path / "resumed"), read_losses(tmp_path / "one")
    assert len(expected) == 12
    for step, losses in expected.items():
        assert actual[step] == pytest.approx(losses, rel=1e-5), step


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_rank_ends_the_job_and_resume_is_bit_exact(tmp_path: Path, victim: int) -> None:
    """The resumed run also uses the same dropout masks, which are different on each rank."""
    overrides = ("train.epochs=3", "train.checkpoint_every_steps=3", "head={name: deeplabv3}")
    command = (write_tiny_config(tmp_path), *overrides, "--device", "cpu", "--output", "killed")
    ranks = start_tool_on_two_ranks(tmp_path, "train.py", *command)
    ranks[victim].kill_when_exists(tmp_path / "killed" / "last" / "state.pt")
    assert ranks[victim].wait() == -signal.SIGKILL
    assert ranks[1 - victim].wait() == 2
    lines = ranks[1 - victim].read_output().splitlines()
    assert [line for line in lines if line.startswith("error: another process of the job ended")]
    assert "Traceback" not in ranks[1 - victim].read_output()
    train_on_two_ranks(tmp_path, "killed", *overrides)
    if victim == 1:
        train_on_two_ranks(tmp_path, "uninterrupted", *overrides)
        resumed, expected = (
            load_weights(tmp_path / run / "last" / "model.safetensors").tensors
            for run in ("killed", "uninterrupted")
        )
        assert all(torch.equal(resumed[name], expected[name]) for name in resumed)


def test_error_of_all_ranks_is_printed_once(tmp_path: Path) -> None:
    ranks = start_tool_on_two_ranks(
        tmp_path, "train.py", write_tiny_config(tmp_path), "loader.batch_size=3"
    )
    assert [rank.wait() for rank in ranks] == [2, 2]
    assert "".join(rank.read_output() for rank in ranks).splitlines() == [
        "error: loader.batch_size: 3 images cannot be divided equally among 2 processes; "
        "choose a multiple of 2"
    ]


def test_torchrun_restarts_a_killed_rank(tmp_path: Path) -> None:
    """The second rank kills itself once, after its first checkpoint."""
    file = tmp_path / "kill_once.py"
    file.write_text(KILL_ONCE.format(tools=Path(__file__).parents[2] / "tools"))
    command = [
        str(write_tiny_config(tmp_path)),
        "train.checkpoint_every_steps=3",
        "--device",
        "cpu",
    ]
    command += ["--output", "run"]
    job = start_forked(
        tmp_path / "output.txt", {"OMP_NUM_THREADS": "1"}, torchrun, tmp_path, file, *command
    )
    assert job.wait() == 0, job.read_output()
    assert (tmp_path / "killed").exists()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["complete"]
    assert [line["step"] for line in read_lines(tmp_path / "run", "train")] == list(range(1, 9))


def torchrun(folder: Path, script: Path, *arguments: str) -> None:
    """Run torchrun as from a shell, but fork ranks from a process with all modules imported."""
    from torch.distributed.run import main

    os.chdir(folder)
    options = ["--nproc-per-node=2", "--max-restarts=1", "--run-path", "--start-method=fork"]
    main([*options, str(script), *arguments])


KILL_ONCE = """
import os, runpy, signal, sys
from pathlib import Path
from densemtl.engine import train_state

save = train_state.TrainState.save

def save_and_kill(self, *args):
    save(self, *args)
    if os.environ["RANK"] == "1" and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)

train_state.TrainState.save = save_and_kill
try:
    runpy.run_path("{tools}/train.py", run_name="__main__")
except SystemExit as error:  # torchrun runs the script with runpy, so that it must return
    if error.code:
        raise
"""
