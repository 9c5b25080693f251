"""Gradient cosines and look-ahead affinity are what they are defined as, and leave no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.engine.checkpoint import load_weights
from densemtl.engine.run_log import read_log
from densemtl.engine.task_affinity import TaskAffinity, flatten_pairs, group_shared_parameters
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


def network(tasks: list[Task], decoder: str, backbone: str = "test_resnet") -> MultiTaskModel:
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


def gradient(
    model: MultiTaskModel, tasks: list[Task], batch: Batch, name: str
) -> dict[str, Tensor]:
    model.zero_grad()
    compute_task_losses(tasks, model.eval()(batch.image), batch.targets).tasks[name].backward()
    return {key: each.grad for key, each in model.named_parameters() if each.grad is not None}


def test_cosines_are_those_of_whole_backward_passes(tasks: list[Task], batch: Batch) -> None:
    model = network(tasks, "hard_sharing").double()
    one, other = (gradient(model, tasks, batch, name) for name in ("semseg", "normals"))
    keys = [key for key in one if ".net.layer3." in key]
    a, b = (torch.cat([each[key].flatten() for key in keys]) for each in (one, other))
    cosines = TaskAffinity(model, tasks, CPU).compute_gradient_cosines(batch)
    assert list(cosines) == ["stem", "stage 1", "stage 2", "stage 3", "stage 4"]
    wanted = float(a @ b / a.norm() / b.norm())
    # Gradients are in double precision, but cosines are computed in float32.
    assert float(cosines["stage 3"][0, 2]) == pytest.approx(wanted, abs=1e-6)
    for matrix in cosines.values():
        torch.testing.assert_close(matrix.diagonal(), torch.ones(3))
        torch.testing.assert_close(matrix, matrix.T)


def test_affinity_of_a_small_step_is_its_first_order(tasks: list[Task], batch: Batch) -> None:
    """L_j(w - r g_i) = L_j - r g_i g_j, so 1 - L_j'/L_j = r g_i g_j / L_j."""
    model, rate = network(tasks, "hard_sharing").double(), 1e-5
    model.mean.data, model.std.data = model.mean.double(), model.std.double()
    batch = Batch(batch.image.double(), batch.targets, batch.ids, batch.placements)
    names = [task.name for task in tasks]
    losses = compute_task_losses(tasks, model.eval()(batch.image.double()), batch.targets).tasks
    found = [gradient(model, tasks, batch, name) for name in names]
    shared = [key for key in found[0] if "backbone" in key]
    vectors = [torch.cat([each[key].flatten() for key in shared]) for each in found]
    made = TaskAffinity(model, tasks, CPU).compute_affinity(batch, rate)
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors):
            wanted = rate * float(one @ other) / losses[names[j]].item()
            assert float(made[i, j]) == pytest.approx(wanted, rel=0.05, abs=4e-7)


def test_nothing_is_left_behind(tasks: list[Task], batch: Batch) -> None:
    model = network(tasks, "hard_sharing")
    before = {key: each.clone() for key, each in model.state_dict().items()}
    relations = TaskAffinity(model, tasks, CPU)
    relations.compute_gradient_cosines(batch)
    relations.compute_affinity(batch, 0.1)
    assert all(torch.equal(each, before[key]) for key, each in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())


@pytest.mark.parametrize(
    ("decoder", "backbone", "places"),
    [
        ("mtan", "test_resnet", ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "rest"]),
        ("hard_sharing", "hrnet_w18_small", ["backbone"]),
        ("ple", "test_vit", ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "rest"]),
    ],
)
def test_every_shared_parameter_has_one_place(
    tasks: list[Task], decoder: str, backbone: str, places: list[str]
) -> None:
    model = network(tasks, decoder, backbone)
    stages = group_shared_parameters(model)
    assert list(stages) == places
    placed = [id(each) for members in stages.values() for each in members]
    assert sorted(placed) == sorted(id(each) for each in model.parameter_groups()["shared"])


def test_networks_of_their_own_have_no_relations(tasks: list[Task]) -> None:
    with pytest.raises(ModelError, match="share no parameters"):
        TaskAffinity(network(tasks, "cross_stitch"), tasks, CPU)


def test_pairs_are_named_once() -> None:
    matrix = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    assert flatten_pairs({"stem": matrix}, ["a", "b"]) == {"stem/a~b": 0.5}


def test_a_run_logs_and_draws_them_and_learns_the_same(tmp_path: Path) -> None:
    for name, every in (("with", 1), ("without", 0)):
        train_experiment(
            make_tiny_experiment(f"train.grad_similarity_every={every}"), tmp_path / name, "cpu"
        )
    lines = read_log(tmp_path / "with" / "log.jsonl")
    told = [line for line in lines if line["kind"] == "relations"]
    assert [line["step"] for line in told] == [4, 8]
    assert -1 <= told[0]["stage 2/semseg~depth"] <= 1
    assert (tmp_path / "with" / "relations.png").exists()
    assert not (tmp_path / "without" / "relations.png").exists()
    one, other = (
        load_weights(tmp_path / name / "last" / "model.safetensors").tensors
        for name in ("with", "without")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_one_task_alone_trains_is_0_for_the_other(tasks: list[Task], batch: Batch) -> None:
    model = network(tasks, "hard_sharing")
    void = {**batch.targets, "depth": torch.full_like(batch.targets["depth"], torch.nan)}
    cosines = TaskAffinity(model, tasks, CPU).compute_gradient_cosines(
        Batch(batch.image, void, batch.ids, batch.placements)
    )
    assert not cosines["stage 1"][1].any()
