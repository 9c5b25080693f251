"""tools/train.py and tools/evaluate.py by two processes: as one on the joined batch."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from densemtl.engine.checkpoint import load_weights
from densemtl.engine.run_log import read_log
from densemtl.engine.trainer import train
from densemtl.factory import build_splits
from densemtl.results.results import load_results
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from tests.helpers.experiments import make_tiny_experiment, write_tiny_config
from tests.helpers.forked_tools import start_forked
from tests.helpers.two_ranks import start_tool_on_two_ranks, wait_for_both

NO_NUMBERS = {"kind", "time", "images_per_second"}

MEASURES = ("weight/", "norm/", "cosine/")
"""Of gradients; these are no more exact than a float32 backward pass."""

FIVE_IMAGES = "data={name: synthetic, size: [32, 40], train_images: 9, val_images: 5}"
"""Of which two ranks take three and two; the ninth of the training images fills no batch."""

SGD = "optim={name: sgd, lr: 1e-4}"
"""Adam makes steps of full size of gradients that are nothing but rounding; and at larger rates one
process drifts from itself as far, with nothing but another memory layout."""

RECIPES = {
    "hard_sharing": ("train.grad_accum_steps=2", "train.max_grad_norm=1", "train.ema_decay=0.9"),
    "recomputed": ("train.grad_checkpointing=true", SGD, "train.epochs=1"),
    "pad_net": (
        "decoder={name: pad_net, width: 8}",
        "balancing={name: uncertainty}",
        SGD,
        "train.epochs=1",
    ),
    "terms": (
        "decoder={name: mmoe, load_balance: 0.1}",
        "tasks=[semseg, {name: depth, loss: berhu}, {name: edge, positive_weight: null}]",
        "loader={batch_size: 4, eval_batch_size: 2, num_workers: 1}",
        SGD,
    ),
    "gradients at features": ("balancing={name: mgda, scope: features}", SGD),
    "gradients of parameters": ("balancing={name: mgda, scope: parameters}", SGD),
    "shards": ("train.fsdp=true", "train.ema_decay=0.9", "balancing={name: uncertainty}", SGD),
}


def two(folder: Path, output: str, *overrides: str) -> str:
    """Train by two ranks; what they said."""
    config = write_tiny_config(folder)
    return wait_for_both(
        start_tool_on_two_ranks(
            folder, "train.py", config, *overrides, "--device", "cpu", "--output", output
        )
    )


def one(folder: Path, *overrides: str, max_steps: int | None = None) -> None:
    """Train by this process."""
    experiment = make_tiny_experiment(*overrides)
    precision = make_execution_config(experiment.train, "cpu")
    train(build_training_run(experiment, build_splits(experiment), folder, precision), max_steps)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    told = [line for line in read_log(folder / "log.jsonl") if line["kind"] == kind]
    return [{key: line[key] for key in line.keys() - NO_NUMBERS} for line in told]


def losses(folder: Path) -> dict[int, tuple[float, float]]:
    """By step; the rates beside them are those of the next step, where there was one."""
    return {line["step"]: (line["semseg"], line["depth"]) for line in lines(folder, "train")}


def assert_same_course(one: Path, other: Path) -> None:
    ours, theirs = lines(one, "train"), lines(other, "train")
    assert len(ours) >= 4
    for line, twin in zip(ours, theirs, strict=True):
        weighed = {name for name in line if name == "total" or name.startswith(MEASURES)}
        for names, exactness in ((line.keys() - weighed, 1e-5), (weighed, 1e-4)):
            expected = {name: twin[name] for name in names}
            found = {name: line[name] for name in names}
            assert found == pytest.approx(expected, rel=exactness, abs=1e-6), line["step"]
    for line, twin in zip(lines(one, "val"), lines(other, "val"), strict=True):
        assert line == pytest.approx(twin, rel=1e-3, nan_ok=True), line["step"]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_two_ranks_learn_as_one_process_on_the_joined_batch(
    tmp_path: Path, recipe: tuple[str, ...]
) -> None:
    overrides = (FIVE_IMAGES, *recipe)
    said = two(tmp_path, "two", *overrides)
    train_experiment(make_tiny_experiment(*overrides), tmp_path / "one", "cpu")
    assert_same_course(tmp_path / "one", tmp_path / "two")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names
    assert said.count("weights, results and pictures: two") == 1
    twin = load_results(tmp_path / "two")
    assert (twin.images, twin.complete) == (5, True)


def test_every_image_is_scored_once(tmp_path: Path) -> None:
    """Counts to the last pixel, sums of floats to their last bits; each rank saves its own."""
    train_experiment(make_tiny_experiment(FIVE_IMAGES), tmp_path / "run", "cpu")
    options = ("--device", "cpu", "--output", "two.json", "--save-predictions", "maps")
    said = wait_for_both(start_tool_on_two_ranks(tmp_path, "evaluate.py", "run", *options))
    assert said.count("results: two.json") == 1
    alone, shared = load_results(tmp_path / "run"), load_results(tmp_path / "two.json")
    assert alone.weights_hash == shared.weights_hash
    for task, result in alone.tasks.items():
        metrics = shared.tasks[task].metrics
        assert metrics["images"] == 5
        assert metrics == pytest.approx(result.metrics, rel=1e-9, nan_ok=True)
    assert alone.tasks["semseg"].metrics["mIoU"] == shared.tasks["semseg"].metrics["mIoU"]
    for task in ("semseg", "depth"):
        assert len(list((tmp_path / "maps" / task).iterdir())) == 5


@pytest.mark.parametrize("shard", ["false", "true"])
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path, shard: str) -> None:
    overrides = ("train.epochs=3", "train.ema_decay=0.9", f"train.fsdp={shard}")
    one(tmp_path / "moved", *overrides, max_steps=3)
    two(tmp_path, "moved", *overrides, "--max-steps", "7")
    one(tmp_path / "moved", "train.epochs=3", "train.ema_decay=0.9")
    one(tmp_path / "one", "train.epochs=3", "train.ema_decay=0.9")
    ours, theirs = losses(tmp_path / "moved"), losses(tmp_path / "one")
    assert len(theirs) == 12
    for step, twin in theirs.items():
        assert ours[step] == pytest.approx(twin, rel=1e-5), step


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(
    tmp_path: Path, victim: int
) -> None:
    """To the same weights bit for bit, dropout included, which each rank draws for itself."""
    overrides = ("train.epochs=4", "train.checkpoint_every_steps=3", "head={name: deeplabv3}")
    command = (write_tiny_config(tmp_path), *overrides, "--device", "cpu", "--output", "killed")
    ranks = start_tool_on_two_ranks(tmp_path, "train.py", *command)
    ranks[victim].kill_when_exists(tmp_path / "killed" / "last" / "state.pt")
    assert ranks[victim].wait() == -signal.SIGKILL
    assert ranks[1 - victim].wait() == 2
    told = ranks[1 - victim].read_output().splitlines()
    assert [line for line in told if line.startswith("error: another process of the job ended")]
    assert "Traceback" not in ranks[1 - victim].read_output()
    two(tmp_path, "killed", *overrides)
    if victim == 1:
        two(tmp_path, "whole", *overrides)
        ours, theirs = (
            load_weights(tmp_path / run / "last" / "model.safetensors").tensors
            for run in ("killed", "whole")
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_all_ranks_find_wrong_is_told_once(tmp_path: Path) -> None:
    ranks = start_tool_on_two_ranks(
        tmp_path, "train.py", write_tiny_config(tmp_path), "loader.batch_size=3"
    )
    assert [rank.wait() for rank in ranks] == [2, 2]
    assert "".join(rank.read_output() for rank in ranks).splitlines() == [
        "error: loader.batch_size: 3 images cannot be shared alike by 2 processes; "
        "choose a multiple of 2"
    ]


def test_torchrun_starts_a_killed_rank_again(tmp_path: Path) -> None:
    """One of the ranks kills itself after the first checkpoint, once."""
    file = tmp_path / "suicide.py"
    file.write_text(SUICIDE.format(tools=Path(__file__).parents[2] / "tools"))
    command = [
        str(write_tiny_config(tmp_path)),
        "train.checkpoint_every_steps=3",
        "--device",
        "cpu",
    ]
    command += ["--output", "run"]
    job = start_forked(
        tmp_path / "said.txt", {"OMP_NUM_THREADS": "1"}, torchrun, tmp_path, file, *command
    )
    assert job.wait() == 0, job.read_output()
    assert (tmp_path / "killed").exists()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["complete"]
    assert [line["step"] for line in lines(tmp_path / "run", "train")] == list(range(1, 9))


def torchrun(folder: Path, script: Path, *arguments: str) -> None:
    """As from a shell, but ranks are forked from a process that has imported everything."""
    from torch.distributed.run import main

    os.chdir(folder)
    options = ["--nproc-per-node=2", "--max-restarts=1", "--run-path", "--start-method=fork"]
    main([*options, str(script), *arguments])


SUICIDE = """
import os, runpy, signal, sys
from pathlib import Path
from densemtl.engine import train_state

save = train_state.TrainState.save

def save_and_die(self, *given):
    save(self, *given)
    if os.environ["RANK"] == "1" and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)

train_state.TrainState.save = save_and_die
try:
    runpy.run_path("{tools}/train.py", run_name="__main__")
except SystemExit as ended:  # torchrun waits for scripts to return, as it runs them here
    if ended.code:
        raise
"""
