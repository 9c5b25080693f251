"""Tests of gradient cosines and look-ahead affinity against their definitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.engine.run_log import read_log
from densemtl.engine.task_affinity import TaskAffinity, flatten_pairs, group_shared_parameters
from densemtl.engine.weights_file import load_weights
from densemtl.errors import ModelError
from densemtl.heads.linear import LinearHead
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runs.train_run import train_experiment
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.types import Batch, ImagePlacement
from tests.helpers.experiments import make_tiny_experiment

CPU = ExecutionConfig(torch.device("cpu"))


def make_model(tasks: list[Task], decoder: str, backbone: str = "test_resnet") -> MultiTaskModel:
    torch.manual_seed(0)

    def make_backbone() -> Backbone:
        return Backbone(backbone, pretrained=False)

    return MultiTaskModel(
        registry.create("decoders", decoder, make_backbone, LinearHead, tasks, options={})
    )


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    return [make_task("semseg"), make_task("depth"), make_task("normals")]


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    size, normals = (64, 64), torch.randn(2, 3, 64, 64)
    targets = {
        "semseg": torch.randint(0, 3, (2, *size), dtype=torch.uint8),
        "depth": torch.rand(2, 1, *size) + 0.5,
        "normals": normals / normals.norm(dim=1, keepdim=True),
    }
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    return Batch(image, targets, ["a", "b"], [ImagePlacement(size, (0, 0, *size))] * 2)


def compute_gradient(
    model: MultiTaskModel, tasks: list[Task], batch: Batch, task: str
) -> dict[str, Tensor]:
    model.zero_grad()
    compute_task_losses(tasks, model.eval()(batch.image), batch.targets).tasks[task].backward()
    return {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def test_cosines_equal_those_of_full_backward_passes(tasks: list[Task], batch: Batch) -> None:
    model = make_model(tasks, "hard_sharing").double()
    gradients = [compute_gradient(model, tasks, batch, task) for task in ("semseg", "normals")]
    names = [name for name in gradients[0] if ".net.layer3." in name]
    a, b = (torch.cat([gradient[name].flatten() for name in names]) for gradient in gradients)
    cosines = TaskAffinity(model, tasks, CPU).compute_gradient_cosines(batch)
    assert list(cosines) == ["stem", "stage 1", "stage 2", "stage 3", "stage 4"]
    expected = float(a @ b / a.norm() / b.norm())
    # Gradients are in double precision, but cosines are computed in float32.
    assert float(cosines["stage 3"][0, 2]) == pytest.approx(expected, abs=1e-6)
    for matrix in cosines.values():
        torch.testing.assert_close(matrix.diagonal(), torch.ones(3))
        torch.testing.assert_close(matrix, matrix.T)


def test_affinity_of_a_small_step_equals_its_first_order(tasks: list[Task], batch: Batch) -> None:
    """L_j(w - r g_i) = L_j - r g_i g_j, so 1 - L_j'/L_j = r g_i g_j / L_j with learning rate r."""
    model, lr = make_model(tasks, "hard_sharing").double(), 1e-5
    model.mean.data, model.std.data = model.mean.double(), model.std.double()
    batch = Batch(batch.image.double(), batch.targets, batch.ids, batch.placements)
    names = [task.name for task in tasks]
    losses = compute_task_losses(tasks, model.eval()(batch.image.double()), batch.targets).tasks
    gradients = [compute_gradient(model, tasks, batch, name) for name in names]
    shared = [name for name in gradients[0] if "backbone" in name]
    vectors = [torch.cat([gradient[name].flatten() for name in shared]) for gradient in gradients]
    affinity = TaskAffinity(model, tasks, CPU).compute_affinity(batch, lr)
    for i, row in enumerate(vectors):
        for j, column in enumerate(vectors):
            expected = lr * float(row @ column) / losses[names[j]].item()
            assert float(affinity[i, j]) == pytest.approx(expected, rel=0.05, abs=4e-7)


def test_measurements_do_not_change_the_model(tasks: list[Task], batch: Batch) -> None:
    model = make_model(tasks, "hard_sharing")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task_affinity = TaskAffinity(model, tasks, CPU)
    task_affinity.compute_gradient_cosines(batch)
    task_affinity.compute_affinity(batch, 0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("decoder", "backbone", "stages"),
    [
        ("mtan", "test_resnet", ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "rest"]),
        ("hard_sharing", "hrnet_w18_small", ["backbone"]),
        ("ple", "test_vit", ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "rest"]),
    ],
)
def test_every_shared_parameter_is_in_one_stage(
    tasks: list[Task], decoder: str, backbone: str, stages: list[str]
) -> None:
    model = make_model(tasks, decoder, backbone)
    parameters = group_shared_parameters(model)
    assert list(parameters) == stages
    grouped = [id(parameter) for members in parameters.values() for parameter in members]
    assert sorted(grouped) == sorted(map(id, model.parameter_groups()["shared"]))


def test_model_without_shared_parameters_raises_an_error(tasks: list[Task]) -> None:
    with pytest.raises(ModelError, match="share no parameters"):
        TaskAffinity(make_model(tasks, "cross_stitch"), tasks, CPU)


def test_flatten_pairs_lists_each_pair_once() -> None:
    matrix = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    assert flatten_pairs({"stem": matrix}, ["a", "b"]) == {"stem/a~b": 0.5}


def test_run_logs_and_plots_cosines_with_unchanged_weights(tmp_path: Path) -> None:
    for name, every in (("with", 1), ("without", 0)):
        train_experiment(
            make_tiny_experiment(f"train.grad_similarity_every={every}"), tmp_path / name, "cpu"
        )
    lines = read_log(tmp_path / "with" / "log.jsonl")
    cosines = [line for line in lines if line["kind"] == "relations"]
    assert [line["step"] for line in cosines] == [4, 8]
    assert -1 <= cosines[0]["stage 2/semseg~depth"] <= 1
    assert (tmp_path / "with" / "relations.png").exists()
    assert not (tmp_path / "without" / "relations.png").exists()
    first, second = (
        load_weights(tmp_path / name / "last" / "model.safetensors").tensors
        for name in ("with", "without")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_cosines_of_a_task_without_labels_are_zero(tasks: list[Task], batch: Batch) -> None:
    model = make_model(tasks, "hard_sharing")
    targets = {**batch.targets, "depth": torch.full_like(batch.targets["depth"], torch.nan)}
    cosines = TaskAffinity(model, tasks, CPU).compute_gradient_cosines(
        Batch(batch.image, targets, batch.ids, batch.placements)
    )
    assert not cosines["stage 1"][1].any()
