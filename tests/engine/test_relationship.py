"""Tests of the prior on task layers: which layers, its gradient, updates, resume and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import densemtl
from densemtl.config.relationship import RelationshipConfig
from densemtl.engine.relationship import RIDGE, TaskRelationship, find_common_layers
from densemtl.errors import ConfigError
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runs.train_run import train_experiment
from densemtl.tasks.base import Task
from tests.helpers.experiments import make_tiny_experiment

ALL = ("task", "output", "input")


def make_model(
    *names: str, head: str = "fpn", decoder: str = "hard_sharing"
) -> tuple[MultiTaskModel, list[Task]]:
    tasks = densemtl.create_tasks(list(names), data="nyud")
    torch.manual_seed(0)
    width = {"width": 2} if head == "fpn" else {}
    return densemtl.create_model(
        decoder, backbone="test_resnet", tasks=tasks, head={"name": head, **width}
    ), tasks


def test_layers_of_all_tasks_are_found_and_last_layers_are_not() -> None:
    # depth and edge have one channel each, so that even their last layers have the same shape
    model, tasks = make_model("depth", "edge")
    layers = find_common_layers(model, tasks)
    assert list(layers) == [*(f"heads.lateral.{level}" for level in range(4)), "heads.smooth.0"]
    heads = model.decoder.get_submodule("heads")
    expected = [heads.get_parameter(f"{task}.smooth.0.weight") for task in ("depth", "edge")]
    assert all(a is b for a, b in zip(layers["heads.smooth.0"], expected, strict=True))


@pytest.mark.parametrize("decoder", ["cross_stitch", "pad_net", "mtan"])
def test_backbones_and_layers_of_other_shapes_are_left_out(decoder: str) -> None:
    model, tasks = make_model("semseg", "depth", decoder=decoder)
    layers = find_common_layers(model, tasks)
    assert layers
    for name, weights in layers.items():
        assert "backbone" not in name
        assert len({weight.shape for weight in weights}) == 1
        assert len(weights) == 2


def test_a_frozen_layer_has_no_prior() -> None:
    model, tasks = make_model("semseg", "depth")
    model.decoder.get_parameter("heads.depth.smooth.0.weight").requires_grad_(False)
    assert "heads.smooth.0" not in find_common_layers(model, tasks)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_penalty_starts_as_weight_decay(weight: float) -> None:
    model, tasks = make_model("semseg", "depth")
    prior = TaskRelationship(RelationshipConfig(weight=weight), model, tasks)
    prior.compute_penalty().backward()
    for layer in find_common_layers(model, tasks).values():
        squares = sum(float(each.detach().square().sum()) for each in layer)
        for each in layer:
            torch.testing.assert_close(each.grad, 2 * weight / squares * each.detach())


@pytest.mark.parametrize("update", [("task",), ALL])
def test_penalty_is_that_of_the_estimated_covariances(update: tuple[str, ...]) -> None:
    """Compare with dense covariances in float64, estimated by the formula of the paper."""
    model, tasks = make_model("semseg", "depth", "normals")
    layers = find_common_layers(model.double(), tasks)
    prior = TaskRelationship(RelationshipConfig(weight=1, update=update), model, tasks)
    variances = [torch.stack(weights).detach().square().mean() for weights in layers.values()]
    for weight in model.parameters():
        weight.requires_grad_(False)
        weight.mul_(torch.rand_like(weight))
    prior.update(99)
    before = prior.compute_penalty()
    assert not any((each - torch.eye(len(each))).any() for each in _task_factors(prior))
    prior.update(100)
    expected = torch.zeros(()).double()
    for weights, variance in zip(layers.values(), variances, strict=True):
        stacked = torch.stack([weight.flatten(1) for weight in weights])
        expected += _dense_penalty(stacked, update) / variance
    assert float(prior.compute_penalty()) == pytest.approx(float(expected), rel=1e-9)
    assert float(prior.compute_penalty()) != float(before)


def _task_factors(prior: TaskRelationship) -> list[Tensor]:
    return [value for name, value in prior.named_buffers() if name.endswith("task")]


@torch.no_grad()
def _dense_penalty(weights: Tensor, update: tuple[str, ...]) -> Tensor:
    correlations = [torch.eye(n).double() for n in weights.shape]
    for axis, name in enumerate(ALL):
        if name in update:
            others = [each for index, each in enumerate(correlations) if index != axis]
            rows = weights.movedim(axis, 0).flatten(1)
            estimate = rows @ torch.linalg.inv(torch.kron(*others)) @ rows.T / rows.shape[1]
            estimate += RIDGE * estimate.trace() / len(rows) * torch.eye(len(rows)).double()
            deviations = estimate.diagonal().sqrt()
            correlations[axis] = estimate / deviations / deviations[:, None]
    dense = torch.kron(torch.kron(correlations[0], correlations[1]), correlations[2])
    flat = weights.flatten()
    return flat @ torch.linalg.solve(dense, flat) / len(flat)


def test_small_weights_have_a_small_penalty() -> None:
    """A penalty whose variances follow the weights would let weights shrink to 0."""
    gradients = {}
    for scale in (1, 1e-3):
        model, tasks = make_model("semseg", "depth")
        prior = TaskRelationship(RelationshipConfig(every=1), model, tasks)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(scale)
        prior.update(1)
        prior.compute_penalty().backward()
        gradients[scale] = model.decoder.get_parameter("heads.depth.smooth.0.weight").grad
    torch.testing.assert_close(gradients[1e-3], 1e-3 * gradients[1])


@pytest.mark.parametrize(
    ("names", "head", "message"),
    [(("semseg", "depth"), "linear", "no layer has the same shape"), (("depth",), "fpn", "two")],
)
def test_a_model_without_common_layers_is_an_error(
    names: tuple[str, ...], head: str, message: str
) -> None:
    model, tasks = make_model(*names, head=head)
    with pytest.raises(ConfigError, match=f"relationship: .*{message}"):
        TaskRelationship(RelationshipConfig(), model, tasks)


def test_it_is_checked_before_the_baselines_are_trained(tmp_path: Path) -> None:
    wrong = make_tiny_experiment("relationship={}", "head={name: linear}", "baselines=auto")
    with pytest.raises(ConfigError, match="relationship"):
        train_experiment(wrong, tmp_path / "run", "cpu")
    assert not (tmp_path / "baselines").exists()


def test_correlations_are_those_of_the_covariance() -> None:
    model, tasks = make_model("semseg", "depth", "normals")
    prior = TaskRelationship(RelationshipConfig(every=1), model, tasks)
    assert torch.equal(prior.compute_correlations()["relationship/mean"].weights, torch.eye(3))
    prior.update(1)
    correlations = prior.compute_correlations()
    weights = find_common_layers(model, tasks)["heads.smooth.0"]
    rows = torch.stack([weight.detach().flatten() for weight in weights]).double()
    covariance = rows @ rows.T / rows.shape[1]
    covariance += RIDGE * covariance.diagonal().mean() * torch.eye(3)
    deviations = covariance.diagonal().sqrt()
    expected = covariance / deviations / deviations[:, None]
    actual = correlations["relationship/heads.smooth.0"]
    torch.testing.assert_close(actual.weights.double(), expected, rtol=0, atol=1e-5)
    assert actual.tasks == actual.sources == ("semseg", "depth", "normals")
    layers = [value.weights for name, value in correlations.items() if not name.endswith("mean")]
    mean = correlations["relationship/mean"].weights
    torch.testing.assert_close(mean, torch.stack(layers).mean(dim=0))


def test_configurations_without_it_keep_their_hash() -> None:
    experiment = make_tiny_experiment()
    assert "relationship" not in experiment.to_semantic_dict()
    changed = make_tiny_experiment("relationship={}")
    assert changed.compute_config_hash() != experiment.compute_config_hash()
    assert changed.to_single_task("depth").relationship is None
