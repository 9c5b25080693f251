"""Adapters per task: streams computed layer by layer, gradients, published numbers and errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import densemtl
from densemtl.adapters.low_rank import Adapter
from densemtl.adapters.options import AdapterOptions
from densemtl.adapters.singular_values import SingularValueAdapter
from densemtl.adapters.task_streams import StreamLinear, run_block
from densemtl.backbones.backbone import Backbone
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.decoders.task_adapters import TaskAdapters
from densemtl.errors import ConfigError, ModelError
from densemtl.export.exporter import export_model
from densemtl.export.wrapper import ExportWrapper
from densemtl.heads.linear import LinearHead
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.models.trainable_parameters import count_trainable
from densemtl.tasks.base import Task
from tests.helpers.adapter_cases import SWIN, build_backbone, randomize_adapters
from tests.helpers.exact import assert_same

NAMES = ["depth", "normals"]
SIZE = (64, 96)


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    return [make_task(name) for name in NAMES]


def build(
    tasks: list[Task], backbone: str, adapters: dict[str, Any] | None = None, **options: Any
) -> TaskAdapters:
    shared = None if adapters is None else AdapterOptions(**adapters)
    make = lambda: build_backbone(backbone, adapters=shared, img_size=SIZE)  # noqa: E731
    return TaskAdapters(make, LinearHead, tasks, **options)


def apply_frozen(layer: nn.Linear, x: Tensor) -> Tensor:
    return torch.einsum("...i,oi->...o", x, layer.weight) + layer.bias


def apply_change(adapter: Adapter | None, x: Tensor) -> Tensor | float:
    if adapter is None:
        return 0.0
    return adapter.scale * torch.einsum("...i,ri,or->...o", x, adapter.down, adapter.up)


def compute_streams(
    block: nn.Module, shared: Tensor, own: Tensor, task: str | None
) -> tuple[Tensor, Tensor]:
    """Compute the shared stream and that of a task, or twice the shared stream, as in MTLoRA."""
    unprojected = copy.deepcopy(block)
    unprojected.attn.proj = nn.Identity()
    attend = unprojected._attn if hasattr(block, "_attn") else unprojected.attn
    proj, fc1, fc2 = block.attn.proj, block.mlp.fc1, block.mlp.fc2
    pick = lambda layer: layer.adapter if task is None else layer.task_adapters[task]  # noqa: E731
    attended, own_attended = attend(block.norm1(shared)), attend(block.norm1(own))
    frozen = apply_frozen(proj, attended)
    shared = shared + frozen + apply_change(proj.adapter, attended)
    own = own + frozen + apply_change(pick(proj), own_attended)
    shared_hidden, hidden = block.norm2(shared), block.norm2(own)
    frozen = apply_frozen(fc1, shared_hidden)
    shared_hidden = F.gelu(frozen + apply_change(fc1.adapter, shared_hidden))
    hidden = F.gelu(frozen + apply_change(pick(fc1), hidden))
    frozen = apply_frozen(fc2, shared_hidden)
    shared = shared + frozen + apply_change(fc2.adapter, shared_hidden)
    return shared, own + frozen + apply_change(pick(fc2), hidden)


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("backbone", ["test_vit", SWIN])
@pytest.mark.parametrize("adapters", [None, {"rank": 3, "scale": 0.5}])
@pytest.mark.parametrize("blocks", ["last_of_stage", "all"])
def test_streams_equal_the_equations_of_mtlora(
    tasks: list[Task], backbone: str, adapters: dict[str, Any] | None, blocks: Any
) -> None:
    """Compare the second stage of a ViT and the first one of Swin, both of two blocks."""
    decoder = build(tasks, backbone, adapters, rank=2, scale=1.5, blocks=blocks)
    randomize_adapters(decoder).eval()
    index = 0 if backbone == SWIN else 1
    chain = decoder.backbone.select_blocks(blocks)[index]
    assert len(chain) == (2 if blocks == "all" else 1)
    torch.manual_seed(1)
    x = torch.randn(2, 6, 10, 24) if backbone == SWIN else torch.randn(2, 13, 64)
    stacked, count = x, 1
    for block in chain:
        stacked, count = run_block(block, stacked, count)
    found = stacked.unflatten(0, (3, 2))
    for number, task in enumerate([None, *NAMES]):
        shared = own = x
        for block in chain:
            shared, own = compute_streams(block, shared, own, task)
        assert_same(found[number], own)
        assert_same(found[0], shared)
    assert (found[1] - found[2]).abs().max() > 1e-3
    assert_same(nn.Sequential(*chain)(x), found[0])


@torch.no_grad()
def test_blocks_after_those_with_adapters_run_once_per_stream(tasks: list[Task]) -> None:
    decoder = randomize_adapters(build(tasks, "test_vit", {}, blocks=(4,))).eval()
    plain = decoder.backbone.select_blocks((5,))[3][0]
    streams = torch.randn(6, 13, 64)
    found, count = run_block(plain, streams, 3)
    assert count == 3
    torch.testing.assert_close(found[2:4], plain(streams[2:4]))


class Pyramid(nn.Module):
    """Head that returns the levels that it reads."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return features


@torch.no_grad()
def test_tasks_read_the_shared_stream_of_stages_without_adapters(tasks: list[Task]) -> None:
    decoder = randomize_adapters(build(tasks, "test_vit", {}, blocks=(1, 3))).eval()
    decoder.heads = nn.ModuleDict({task: Pyramid() for task in NAMES})
    image = torch.randn(2, 3, *SIZE)
    pyramids = decoder(image).logits
    for level, shared in enumerate(decoder.backbone(image)):
        one, other = (pyramids[task][level] for task in NAMES)
        if level in (1, 2):
            assert (one - other).abs().max() > 1e-3
        else:
            assert torch.equal(one, other)
            torch.testing.assert_close(one, shared)


@torch.no_grad()
def test_adapters_of_a_layer_share_its_decomposed_weight(tasks: list[Task]) -> None:
    decoder = build(tasks, SWIN, {"kind": "svd"}, kind="svd", rank=3)
    layers = [each for each in decoder.modules() if isinstance(each, StreamLinear)]
    for layer in layers:
        adapters = [*layer.task_adapters.values(), *([layer.adapter] if layer.adapter else [])]
        assert len(adapters) >= len(tasks)
        assert len({id(each.decomposition) for each in adapters}) == 1
    every = [each for each in decoder.modules() if isinstance(each, SingularValueAdapter)]
    assert len({id(each.decomposition.left) for each in every}) < len(every)


@pytest.mark.parametrize("kind", ["lora", "dora", "svd"])
@pytest.mark.parametrize("backbone", ["test_vit", SWIN])
def test_initial_predictions_equal_hard_sharing(
    tasks: list[Task], backbone: str, kind: str
) -> None:
    decoder = build(tasks, backbone, {"kind": kind}, kind=kind).eval()
    plain = build_backbone(backbone, img_size=SIZE)
    missing = plain.load_state_dict(decoder.backbone.state_dict(), strict=False).missing_keys
    assert missing == []
    shared = HardSharing(lambda: plain, LinearHead, tasks).eval()
    shared.heads, x = decoder.heads, torch.randn(2, 3, *SIZE)
    expected = shared(x).logits
    for task, logits in decoder(x).logits.items():
        torch.testing.assert_close(logits, expected[task])
    randomize_adapters(decoder)
    changed = decoder(x).logits
    assert all(not torch.allclose(changed[task], expected[task]) for task in NAMES)


@pytest.mark.parametrize("kind", ["lora", "dora", "svd"])
def test_loss_of_a_task_trains_its_adapters_and_the_shared_ones(
    tasks: list[Task], kind: str
) -> None:
    decoder = randomize_adapters(build(tasks, SWIN, {"kind": kind, "train": ["norm"]}, kind=kind))
    decoder.train()(torch.randn(2, 3, *SIZE)).logits["depth"].sum().backward()
    gradients = {name: each.grad for name, each in decoder.named_parameters()}
    reached = {name for name, each in gradients.items() if each is not None and each.any()}
    trained = {name for name, each in decoder.named_parameters() if each.requires_grad}
    of_normals = {name for name in trained if "normals" in name}
    assert of_normals
    assert reached == trained - of_normals


@pytest.mark.parametrize("targets", [("proj",), ("fc1",), ("fc2",), ("proj", "fc2")])
@pytest.mark.parametrize("kind", ["lora", "svd"])
@pytest.mark.parametrize("blocks", ["all", "last_of_stage", (0,), (3, 4), (0, 5)])
def test_all_trained_parameters_have_gradients_for_all_targets(
    tasks: list[Task], targets: tuple[Any, ...], kind: str, blocks: Any
) -> None:
    options = {"kind": kind, "targets": targets, "blocks": blocks}
    decoder = randomize_adapters(build(tasks, "test_vit", {"kind": kind}, **options)).train()
    sum(each.sum() for each in decoder(torch.randn(2, 3, *SIZE)).logits.values()).backward()
    assert all((each.grad is None) != each.requires_grad for each in decoder.parameters())


def test_groups_of_parameters(tasks: list[Task]) -> None:
    decoder = build(tasks, "test_vit", {})
    groups = decoder.parameter_groups()
    names = {id(each): name for name, each in decoder.named_parameters()}
    for task in NAMES:
        assert all(task in names[id(each)] for each in groups[task])
        assert any(".task_adapters." in names[id(each)] for each in groups[task])
    assert not any(".task_adapters." in names[id(each)] for each in groups["shared"])


PARTS = ("norm", "position", "stem", "downsample")
PLAIN = 23_232 + 23_322 + 4_704 + 1_548_288
"""Trained parameters of Swin-T: norms, tables of relative positions, embedding, patch merging."""


@pytest.mark.parametrize(
    ("kind", "rank", "target", "shared", "own", "unused"),
    [
        ("lora", 16, None, 1_130_496, 276_480, 3840 * 16),
        ("lora", 32, None, 2_260_992, 276_480, 3840 * 32),
        ("lora", 64, None, 4_521_984, 276_480, 3840 * 64),
        ("lora", 64, "reduction", 4_780_032, 276_480, 3840 * 64),
        ("svd", 63, None, 12 * 4 * 63, 4 * 3 * 4 * 3, 3 * 63),
    ],
    ids=["mtlora-16", "mtlora-32", "mtlora-64", "mtlora-plus", "ditask"],
)
def test_published_numbers_of_trained_parameters(
    make_task: Callable[..., Task],
    kind: Any,
    rank: int,
    target: str | None,
    shared: int,
    own: int,
    unused: int,
) -> None:
    """Compare with the published code of MTLoRA and DiTASK for Swin-T and 4 tasks.

    Published code also has shared adapters of the layers at the end of the network, whose output
    nothing reads: `fc2` of MTLoRA, and `proj`, `fc1` and `fc2` of DiTASK.
    """
    targets = ("qkv", "proj", "fc1", "fc2", *([target] if target else []))
    parts = PARTS[:-1] if target else PARTS
    options = AdapterOptions(kind=kind, rank=rank, targets=targets, train=parts)
    decoder = TaskAdapters(
        lambda: Backbone("swin_tiny_patch4_window7_224", pretrained=False, adapters=options),
        LinearHead,
        [make_task(name) for name in ("semseg", "human_parts", "normals", "saliency")],
        kind=kind,
        rank=4 if kind == "lora" else 3,
    )
    counts = count_trainable(MultiTaskModel(decoder))
    assert counts["adapters"] == shared - unused
    assert counts["task_adapters"] == own
    assert counts["backbone"] == PLAIN - (1_548_288 if target else 0)


def test_exported_network_predicts_the_same(tasks: list[Task], tmp_path: Path) -> None:
    decoder = randomize_adapters(build(tasks, "test_vit", {"rank": 2})).eval()
    images = [np.full((40, 40, 3), value, np.uint8) for value in (50, 200)]
    network = ExportWrapper(MultiTaskModel(decoder), tasks, postprocess=False).eval()
    report = export_model(network, SIZE, images, tmp_path, "torch_export")
    differences = report["files"]["network.pt2"]["differences"]
    assert all(each["max"] < 1e-4 for each in differences.values())


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ("test_resnet", {}, "'test_resnet' does not consist of the blocks of a ViT or of Swin"),
        ("test_convnext", {}, "'test_convnext' does not consist of the blocks of a ViT or of Swin"),
        ("hrnet_w18_small_v2", {}, "cannot be run stage by stage"),
        ("test_vit", {"kind": "svd"}, "decoder.kind: svd needs a frozen backbone"),
        ("test_vit", {"kind": "svd", "scale": 1.0}, "decoder.scale: kind svd does not have it"),
        ("test_vit", {"targets": ["qkv"]}, "targets.0: Input should be 'proj', 'fc1' or 'fc2'"),
        (
            "test_vit",
            {"blocks": [6]},
            "decoder.blocks: 'test_vit' has 6 blocks, from 0 to 5; remove 6",
        ),
        ("test_vit", {"blocks": "first"}, "blocks: must be all, last_of_stage or a list of"),
        ("test_vit", {"rank": 0}, "rank: Input should be greater than or equal to 1"),
    ],
)
def test_wrong_combinations_are_errors(
    backbone: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, ModelError), match=message):
        densemtl.create_model({"name": "task_adapters", **options}, backbone=backbone, tasks=NAMES)
