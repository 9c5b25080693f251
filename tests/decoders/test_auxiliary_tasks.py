"""Auxiliary tasks, which are predicted initially and distilled, but not refined or evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.engine.run_log import read_log
from densemtl.errors import ConfigError
from densemtl.heads.linear import LinearHead
from densemtl.runs.train_run import train_experiment
from densemtl.tasks.base import Task
from tests.helpers.experiments import make_tiny_experiment

NUM_AUX_LOGITS = {"pad_net": 1, "mti_net": 4, "pap_net": 1}
"""{decoder: number of auxiliary predictions of all tasks}."""


@pytest.mark.parametrize("architecture", NUM_AUX_LOGITS)
def test_only_target_tasks_have_final_logits(
    make_task: Callable[..., Task], architecture: str
) -> None:
    targets, auxiliary = [make_task("semseg"), make_task("depth")], [make_task("edge")]
    decoder: torch.nn.Module = registry.create(
        "decoders",
        architecture,
        lambda: Backbone("test_resnet", pretrained=False),
        LinearHead,
        targets,
        auxiliary,
        options={} if architecture == "mti_net" else {"width": 16},
    )
    predictions = decoder(torch.randn(2, 3, 64, 64))
    assert set(predictions.logits) == {"semseg", "depth"}
    assert [set(aux) for aux in predictions.aux_logits] == [
        {"semseg", "depth", "edge"}
    ] * NUM_AUX_LOGITS[architecture]
    predictions.logits["depth"].square().mean().backward()
    gradients = [each.grad for each in decoder.parameter_groups()["edge"]]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in gradients)


@pytest.mark.parametrize("architecture", NUM_AUX_LOGITS)
def test_run_trains_auxiliary_tasks_and_evaluates_only_target_tasks(
    tmp_path: Path, architecture: str
) -> None:
    options = (f"decoder.name={architecture}", "auxiliary_tasks=[edge, normals]")
    results = train_experiment(make_tiny_experiment(*options, "train.epochs=1"), tmp_path, "cpu")
    assert set(results.tasks) == {"semseg", "depth"}
    first = next(line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "train")
    assert first["edge"] > 0
    assert first["normals"] > 0
    assert first["weight/edge"] == 50


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["decoder.name=mtan"],
            "auxiliary_tasks: not supported by decoder 'mtan': use mti_net, pad_net, pap_net",
        ),
        (["decoder.name=pad_net", "auxiliary_tasks=[depth]"], "'depth' is listed twice"),
        (["decoder.name=pad_net", "auxiliary_tasks=[egde]"], "auxiliary_tasks.0: .*'edge'"),
        (
            ["decoder.name=pad_net", "auxiliary_tasks=[{name: edge, wieght: 1}]"],
            "auxiliary_tasks.0.wieght: unknown key",
        ),
    ],
)
def test_invalid_auxiliary_tasks_raise_config_error(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        make_tiny_experiment("auxiliary_tasks=[edge]", *overrides)


def test_single_task_experiment_has_no_auxiliary_tasks() -> None:
    experiment = make_tiny_experiment("decoder.name=pad_net", "auxiliary_tasks=[edge]")
    assert experiment.to_single_task("depth") == make_tiny_experiment().to_single_task("depth")
