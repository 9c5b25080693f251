"""Branched networks: equality with copies of the backbone, size, groups and wrong trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densemtl.backbones.backbone import Backbone
from densemtl.decoders.branched import Branched
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.errors import ConfigError, ModelError
from densemtl.heads.linear import LinearHead
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED
from tests.helpers.decoder_cases import build_backbone, make_images, randomize_batch_norms
from tests.helpers.exact import assert_same

pytestmark = pytest.mark.usefixtures("double_precision")

NAMES = ["semseg", "depth", "normals"]
TOGETHER = [NAMES]
PAIR = [["normals", "semseg"], ["depth"]]
APART = [["depth"], ["semseg"], ["normals"]]
TREES = {
    "one branch": [TOGETHER] * 4,
    "branches at the end": [TOGETHER, TOGETHER, TOGETHER, APART],
    "two levels": [TOGETHER, PAIR, PAIR, APART],
    "pair": [PAIR] * 4,
    "separate": [APART] * 4,
}


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task(name) for name in NAMES]


def make_decoder(tasks: list[Task], tree: Any, backbone: str = "test_resnet") -> Branched:
    torch.manual_seed(0)
    make = lambda: Backbone(backbone, pretrained=False, img_size=(64, 96))  # noqa: E731
    return Branched(make, LinearHead, tasks, tree=tree)


def run_path(decoder: Branched, task: str, x: Tensor) -> list[Tensor]:
    """Return the pyramid of a task, from the stages of a ResNet along the path of the task."""
    root = list(next(iter(decoder.backbones.values())).net.children())
    feature, pyramid = nn.Sequential(*root[:-4])(x), []
    for stage, groups in enumerate(decoder.tree):
        (group,) = [each for each in groups if task in each]
        owner = next(leaf[0] for leaf in decoder.tree[-1] if leaf[0] in group)
        feature = list(decoder.backbones[owner].net.children())[stage - 4](feature)
        pyramid.append(feature)
    return pyramid


@torch.no_grad()
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_tasks_run_along_their_path(tasks: list[Task], tree: Any) -> None:
    decoder, x = randomize_batch_norms(make_decoder(tasks, tree)), make_images()
    final = decoder(x).logits
    for task in NAMES:
        assert_same(final[task], decoder.heads[task](run_path(decoder, task, x)))


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_initial_predictions_equal_hard_sharing(
    tasks: list[Task], tree: Any, backbone: str
) -> None:
    decoder, x = make_decoder(tasks, tree, backbone).eval(), make_images()
    root = next(iter(decoder.backbones.values()))
    shared = HardSharing(lambda: root, LinearHead, tasks)
    shared.heads = decoder.heads
    expected = shared(x).logits
    for task, logits in decoder(x).logits.items():
        assert_same(logits, expected[task])


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_number_of_parameters_is_that_of_the_copies(tasks: list[Task], tree: Any) -> None:
    decoder, net = make_decoder(tasks, tree), build_backbone()
    stages = [count(*net.get_stage_modules(stage)) for stage in range(4)]
    stem = count(net) - sum(stages)
    expected = stem + sum(size * len(groups) for size, groups in zip(stages, tree, strict=True))
    assert count(*decoder.backbones.values()) == expected


def count(*modules: nn.Module) -> int:
    return sum(each.numel() for module in modules for each in module.parameters())


def test_groups_of_parameters(tasks: list[Task]) -> None:
    decoder = make_decoder(tasks, TREES["two levels"])
    groups = {
        name: {id(each) for each in parameters}
        for name, parameters in decoder.parameter_groups().items()
    }
    pair, root = decoder.backbones["semseg"], decoder.backbones["depth"]
    assert groups[FUSION] == list_ids(pair, 1) | list_ids(pair, 2)
    assert groups[SHARED] > list_ids(root, 0)
    assert groups["depth"] > list_ids(root, 1) | list_ids(root, 2) | list_ids(root, 3)
    assert groups["normals"] > list_ids(decoder.backbones["normals"], 3)


def list_ids(backbone: Backbone, stage: int) -> set[int]:
    modules = backbone.get_stage_modules(stage)
    return {id(each) for module in modules for each in module.parameters()}


def test_loss_of_a_task_trains_only_its_path(tasks: list[Task]) -> None:
    decoder = make_decoder(tasks, TREES["two levels"])
    decoder(make_images()).logits["normals"].sum().backward()
    trained = {name for name, each in decoder.named_parameters() if each.grad is not None}
    branches = {".".join(name.split(".")[1:4]) for name in trained if name.startswith("backbones")}
    assert {each for each in branches if ".layer" in each} == {
        *("depth.net.layer1", "semseg.net.layer2", "semseg.net.layer3", "normals.net.layer4")
    }


def test_frozen_stages_keep_their_statistics(tasks: list[Task]) -> None:
    make = lambda: Backbone("test_resnet", pretrained=False, freeze=2)  # noqa: E731
    decoder = Branched(make, LinearHead, tasks, tree=[TOGETHER, APART, APART, APART]).train()
    before = {name: each.clone() for name, each in decoder.named_buffers()}
    decoder(make_images())
    changed = {
        name for name, each in decoder.named_buffers() if not torch.equal(each, before[name])
    }
    assert changed
    assert not any(".layer1." in name or ".layer2." in name for name in changed)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([TOGETHER] * 3, "decoder.tree: lists the groups of 3 stages, but the backbone has 4"),
        (
            [TOGETHER, PAIR, [["semseg", "depth"], ["normals"]], APART],
            r"decoder.tree.2: semseg, depth are in different groups of the stage before",
        ),
        ([TOGETHER, PAIR, PAIR, [["depth"], ["semseg"]]], "decoder.tree.3: must contain each of"),
        ([TOGETHER, TOGETHER, TOGETHER, [NAMES, ["depth"]]], "must contain each of semseg, depth"),
        ([TOGETHER, TOGETHER, TOGETHER, [NAMES, []]], "must contain each of semseg, depth"),
        ([[["semseg", "depht"]], *[TOGETHER] * 3], "decoder.tree.0: no task 'depht', did you mean"),
    ],
)
def test_wrong_trees_are_errors(tasks: list[Task], tree: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_decoder(tasks, tree)


def test_backbone_without_stages_is_an_error(tasks: list[Task]) -> None:
    make = lambda: Backbone("hrnet_w18_small_v2", pretrained=False)  # noqa: E731
    with pytest.raises(ModelError, match="cannot be run stage by stage"):
        Branched(make, LinearHead, tasks)
