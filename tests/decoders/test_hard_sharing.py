"""One backbone, one head a task."""

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


def test_both_are_found_by_name() -> None:
    assert registry.get_class("decoders", "hard_sharing") is HardSharing
    assert registry.get_class("decoders", "single_task") is SingleTask


def test_a_task_s_loss_reaches_the_backbone_and_its_own_head_alone() -> None:
    decoder = HardSharing(backbone, LinearHead, TASKS)
    decoder(torch.randn(1, 3, 64, 64)).logits["depth"].sum().backward()
    groups = decoder.parameter_groups()
    touched = {name: _has_gradient(parameters) for name, parameters in groups.items()}
    assert touched == {"shared": True, "depth": True, "edge": False}


def test_logits_lie_at_feature_size() -> None:
    final = HardSharing(backbone, LinearHead, TASKS)(torch.randn(2, 3, 64, 96)).logits
    assert {task: each.shape for task, each in final.items()} == {
        "depth": (2, 1, 16, 24),
        "edge": (2, 1, 16, 24),
    }


def test_a_single_task_is_hard_sharing_of_one() -> None:
    alone = SingleTask(backbone, LinearHead, TASKS[:1])
    shared = HardSharing(backbone, LinearHead, TASKS[:1])
    shared.load_state_dict(alone.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        a, b = alone.eval()(x).logits["depth"], shared.eval()(x).logits["depth"]
    assert torch.equal(a, b)


@pytest.mark.parametrize("tasks", [TASKS, []])
def test_a_single_task_refuses_any_other_number(tasks: list[Depth | Edge]) -> None:
    with pytest.raises(ModelError, match="exactly one task"):
        SingleTask(backbone, LinearHead, tasks)


def _has_gradient(parameters: list[nn.Parameter]) -> bool:
    return any(parameter.grad is not None for parameter in parameters)
