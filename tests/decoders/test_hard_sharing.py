"""One backbone, one head a task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from densemtl import registry
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.decoders.single_task import SingleTask
from densemtl.errors import ModelError
from densemtl.heads.linear import Linear
from densemtl.backbones.backbone import Backbone
from densemtl.tasks.depth import Depth
from densemtl.tasks.edge import Edge

TASKS = [Depth("depth"), Edge("edge")]


def backbone() -> Backbone:
    return Backbone("test_resnet", pretrained=False)


def test_both_are_found_by_name() -> None:
    assert registry.find("decoders", "hard_sharing") is HardSharing
    assert registry.find("decoders", "single_task") is SingleTask


def test_a_task_s_loss_reaches_the_backbone_and_its_own_head_alone() -> None:
    decoder = HardSharing(backbone, Linear, TASKS)
    decoder(torch.randn(1, 3, 64, 64)).final["depth"].sum().backward()
    groups = decoder.parameter_groups()
    touched = {name: _has_gradient(parameters) for name, parameters in groups.items()}
    assert touched == {"shared": True, "depth": True, "edge": False}


def test_logits_lie_at_feature_size() -> None:
    final = HardSharing(backbone, Linear, TASKS)(torch.randn(2, 3, 64, 96)).final
    assert {task: each.shape for task, each in final.items()} == {
        "depth": (2, 1, 16, 24),
        "edge": (2, 1, 16, 24),
    }


def test_a_single_task_is_hard_sharing_of_one() -> None:
    alone = SingleTask(backbone, Linear, TASKS[:1])
    shared = HardSharing(backbone, Linear, TASKS[:1])
    shared.load_state_dict(alone.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        a, b = alone.eval()(x).final["depth"], shared.eval()(x).final["depth"]
    assert torch.equal(a, b)


@pytest.mark.parametrize("tasks", [TASKS, []])
def test_a_single_task_refuses_any_other_number(tasks: list[Depth | Edge]) -> None:
    with pytest.raises(ModelError, match="exactly one task"):
        SingleTask(backbone, Linear, tasks)


def _has_gradient(parameters: list[nn.Parameter]) -> bool:
    return any(parameter.grad is not None for parameter in parameters)
