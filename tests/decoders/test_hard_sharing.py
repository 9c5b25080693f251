"""Hard sharing and single-task networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.decoders.single_task import SingleTask
from densemtl.errors import ModelError
from densemtl.heads.linear import LinearHead
from densemtl.tasks.depth import Depth
from densemtl.tasks.edge import Edge

TASKS = [Depth("depth"), Edge("edge")]


def backbone() -> Backbone:
    return Backbone("test_resnet", pretrained=False)


def test_both_decoders_are_found_by_name() -> None:
    assert registry.get_class("decoders", "hard_sharing") is HardSharing
    assert registry.get_class("decoders", "single_task") is SingleTask


def test_loss_has_gradients_only_for_the_backbone_and_the_head_of_its_task() -> None:
    decoder = HardSharing(backbone, LinearHead, TASKS)
    decoder(torch.randn(1, 3, 64, 64)).logits["depth"].sum().backward()
    groups = decoder.parameter_groups()
    touched = {name: _has_gradient(parameters) for name, parameters in groups.items()}
    assert touched == {"shared": True, "depth": True, "edge": False}


def test_logits_have_feature_resolution() -> None:
    final = HardSharing(backbone, LinearHead, TASKS)(torch.randn(2, 3, 64, 96)).logits
    assert {task: each.shape for task, each in final.items()} == {
        "depth": (2, 1, 16, 24),
        "edge": (2, 1, 16, 24),
    }


def test_single_task_equals_hard_sharing_with_one_task() -> None:
    alone = SingleTask(backbone, LinearHead, TASKS[:1])
    shared = HardSharing(backbone, LinearHead, TASKS[:1])
    shared.load_state_dict(alone.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        a, b = alone.eval()(x).logits["depth"], shared.eval()(x).logits["depth"]
    assert torch.equal(a, b)


@pytest.mark.parametrize("tasks", [TASKS, []])
def test_single_task_raises_for_other_numbers_of_tasks(tasks: list[Depth | Edge]) -> None:
    with pytest.raises(ModelError, match="exactly one task"):
        SingleTask(backbone, LinearHead, tasks)


def _has_gradient(parameters: list[nn.Parameter]) -> bool:
    return any(parameter.grad is not None for parameter in parameters)
