"""Tests of tools/branch.py, which finds branched networks from trained runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from densemtl.analysis.branching import get_backbone, measure_branch_costs
from densemtl.config.experiment import load_experiment
from densemtl.engine.loading import load_trained_model
from densemtl.engine.weights_file import save_weights
from densemtl.errors import ConfigError
from densemtl.factory import build_model, build_tasks
from densemtl.models.complexity import count_flops
from tests.helpers.experiments import make_tiny_experiment, write_tiny_config
from tools.branch import main

TASKS = ["semseg", "depth", "normals"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of untrained networks: one per task, and one of all tasks."""
    folder = tmp_path_factory.mktemp("runs")
    save(folder / "all", f"tasks=[{', '.join(TASKS)}]")
    for seed, task in enumerate(TASKS):
        torch.manual_seed(seed)
        save(folder / task, f"tasks=[{task}]", "decoder.name=single_task")
    save(folder / "small", "tasks=[depth]", "input.size=[64, 64]")
    config = write_tiny_config(folder)
    (folder / "three.yaml").write_text(f"base: {config.name}\ntasks: [{', '.join(TASKS)}]\n")
    return folder


def save(folder: Path, *overrides: str) -> None:
    experiment = make_tiny_experiment(*overrides)
    folder.mkdir()
    model = build_model(experiment, build_tasks(experiment))
    save_weights(folder / "best.safetensors", model, experiment.to_yaml())


def run(folder: Path, output: Path, *names: str, options: tuple[str, ...] = ()) -> None:
    paths = [str(folder / name) for name in names]
    arguments = [str(folder / "three.yaml"), *paths, "--output", str(output), "--device", "cpu"]
    main([*arguments, *options])


@pytest.mark.usefixtures("drawn_figures")
def test_trees_from_single_task_runs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, tmp_path, *TASKS, options=("--budget", "1", "2", "3", "--images", "6"))
    content = json.loads((tmp_path / "affinity.json").read_text())
    assert content["tasks"] == TASKS
    assert content["images"] == 6
    for stage in range(1, 5):
        matrix = np.array(content[f"stage {stage}"])
        assert np.allclose(matrix, matrix.T)
        assert np.allclose(matrix.diagonal(), 1)
        assert (matrix[~np.eye(3, dtype=bool)] < 1).all()
    assert (tmp_path / "affinity.png").stat().st_size > 0
    output = capsys.readouterr().out
    assert "budget 1: 1.00 times the parameters of one backbone" in output
    assert output.count("stage 4  [semseg depth normals]") == 1
    assert output.count("stage 1  [semseg] [depth] [normals]") == 1
    costs = []
    for budget in (1, 2, 3):
        experiment = load_experiment(tmp_path / f"tree_{budget}.yaml")
        model = build_model(experiment, build_tasks(experiment))
        costs.append(sum(each.numel() for each in model.decoder.backbones.parameters()))
    assert costs[0] < costs[1] <= 2 * costs[0] < costs[2] <= 3 * costs[0]


def test_tree_from_one_run_of_all_tasks(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, tmp_path, "all", options=("--budget-of", "multiply_adds"))
    content = json.loads((tmp_path / "affinity.json").read_text())
    assert content["measure"] == "agreement on difficult images"
    assert content["images"] == 8
    assert content["stage 1"] == content["stage 4"]
    assert "times the multiply-adds of one backbone" in capsys.readouterr().out


def test_costs_of_stages_add_up_to_the_backbone(folder: Path) -> None:
    trained = load_trained_model(folder / "depth", device="cpu")
    backbone, size = get_backbone(trained), trained.experiment.input.size
    costs = measure_branch_costs(backbone, size, "parameters")
    assert costs.stem + sum(costs.stages) == sum(each.numel() for each in backbone.parameters())
    costs = measure_branch_costs(backbone, size, "multiply_adds")
    padded = tuple(-(-side // 32) * 32 for side in size)
    flop = count_flops(trained.model.to("meta"), padded)
    groups = trained.model.parameter_groups()
    assert len(groups["shared"]) == len(list(backbone.parameters()))
    assert 2 * (costs.stem + sum(costs.stages)) == flop["shared"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("semseg", "all"), r"all/best.safetensors: predicts semseg, depth, normals; pass runs of"),
        ((*TASKS, "depth"), "two runs predict the same task: semseg, depth, normals, depth"),
        (
            ("semseg", "normals", "small"),
            r"input.size is \[64, 64\], but \[32, 40\] in .*semseg",
        ),
        (("depth",), "the runs predict depth, but the configuration has the tasks semseg, depth"),
    ],
)
def test_runs_that_cannot_be_compared(
    folder: Path, tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(folder, tmp_path, *names)


def test_budget_below_one_is_a_wrong_argument(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(folder, tmp_path, *TASKS, options=("--budget", "0.5"))
    assert "must be at least 1" in capsys.readouterr().err
