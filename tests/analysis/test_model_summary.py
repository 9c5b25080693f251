"""What a network costs: published numbers, numbers by hand, and what torch's allocator says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from densemtl import registry
from densemtl.analysis.model_summary import summarize
from densemtl.backbones.backbone import Backbone
from densemtl.config.experiment import ExperimentConfig, load_experiment
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.factory import build_model, build_tasks
from densemtl.heads.linear import LinearHead
from densemtl.layers.common import MultiLevelConv1x1
from densemtl.models.complexity import count_flops, trace_training_forward
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.types import Predictions
from tests.helpers.experiments import make_tiny_experiment

CONFIGS = Path(__file__).parents[2] / "configs"
DECODERS = [name for name in registry.list_names("decoders") if name != "single_task"]
SIZE = (64, 96)


def build(experiment: ExperimentConfig) -> MultiTaskModel:
    return build_model(experiment, build_tasks(experiment), pretrained=False)


@pytest.mark.parametrize(
    ("config", "gflop"),
    [
        ("hrnet18/hard_sharing", 25.5),
        ("hrnet18/pad_net", 140.5),
        ("hrnet18/mti_net", 34.3),
        ("resnet50/hard_sharing", 533),
        ("resnet50/cross_stitch", 767),
        ("resnet50/nddr_cnn", 989),
        ("resnet50/mtan", 789),
    ],
)
def test_flop_as_published(config: str, gflop: float) -> None:
    """Of the survey's published implementation, for semseg (40) and depth (1) at 480 x 640.

    HRNet's levels are mixed there at the finest size, and here each at its own.
    """
    model = build(load_experiment(CONFIGS / "nyud" / f"{config}.yaml"))
    flop = count_flops(model.to("meta"), (480, 640))
    mixes = [each.out_channels for each in model.modules() if isinstance(each, MultiLevelConv1x1)]
    cells = [19200, 4800, 1200, 300]
    spared = sum(
        2 * out * width * (cells[0] - own)
        for out in mixes
        for width, own in zip((18, 36, 72, 144), cells, strict=True)
    )
    assert (sum(flop.values()) + spared) / 1e9 == pytest.approx(gflop, rel=0.01)


@pytest.mark.parametrize("decoder", DECODERS)
def test_groups_add_up(decoder: str) -> None:
    experiment = make_tiny_experiment(f"decoder.name={decoder}")
    summary = summarize(experiment)
    groups, tasks = summary.groups, {"semseg", "depth"}
    assert tasks <= groups.keys() <= {"shared", *tasks, "fusion"}
    assert sum(each.gflop for each in groups.values()) == pytest.approx(summary.total.gflop)
    counts = [each.parameters for each in groups.values()]
    numbers = sum(each.numel() for each in build(experiment).parameters())
    assert sum(counts) == summary.total.parameters == numbers


def test_a_linear_head_by_hand() -> None:
    """1x1 convolutions of the levels: 2 FLOP a pixel, input channel and output."""
    model = build(make_tiny_experiment("head={name: linear}"))
    spec = model.decoder.backbone.feature_info
    levels = zip(spec.channels, spec.strides, strict=True)
    flop = sum(2 * width * (64 // stride) * (96 // stride) for width, stride in levels)
    assert count_flops(model.to("meta"), SIZE)["depth"] == flop


def test_fusion_by_hand() -> None:
    """PAD-Net's messages: between each two of three tasks, each way, two 3x3 at stride 4."""
    model = build(
        make_tiny_experiment("decoder={name: pad_net, width: 16}", "tasks=[semseg, depth, edge]")
    )
    weights = 3 * 2 * 2 * 9 * 16 * 16
    assert sum(each.numel() for each in model.parameter_groups()["fusion"]) == weights
    assert count_flops(model.to("meta"), SIZE)["fusion"] == 2 * weights * (64 // 4) * (96 // 4)


class Meeting(HardSharing):
    """Features meet in products in which no module's parameters take part."""

    def decode_features(self, features: list[torch.Tensor]) -> Predictions:
        last = features[-1].flatten(2)
        return super().decode_features(
            [*features[:-1], (last @ last.mT @ last).view_as(features[-1])]
        )


def test_what_no_module_does_is_fusion() -> None:
    decoder = Meeting(
        lambda: Backbone("test_resnet", pretrained=False),
        LinearHead,
        build_tasks(make_tiny_experiment()),
    )
    channels, stride = (
        decoder.backbone.feature_info.channels[-1],
        decoder.backbone.feature_info.strides[-1],
    )
    flop = count_flops(MultiTaskModel(decoder).to("meta"), SIZE)
    assert flop["fusion"] == 2 * 2 * channels**2 * (64 // stride) * (96 // stride)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("decoder.name=mti_net",),
        ("decoder.name=nddr_cnn",),
        ("backbone={name: test_vit, pretrained: false}", "head={name: linear}"),
    ],
    ids=" ".join,
)
def test_activations_are_what_a_forward_pass_leaves_in_memory(overrides: tuple[str, ...]) -> None:
    """Against the balance of torch's allocator over a pass with numbers."""
    model = build(make_tiny_experiment(f"input.size={list(SIZE)}", *overrides)).train()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        predictions = model(torch.zeros(2, 3, *SIZE), full_size=False)
    left = sum(event.self_cpu_memory_usage for event in profiler.events())
    assert len(predictions.logits) == 2
    assert trace_training_forward(model.to("meta"), SIZE).activation_bytes == pytest.approx(
        left / 2, rel=0.01
    )


def test_the_record_of_a_summary() -> None:
    summary = summarize(make_tiny_experiment("input.size=[64, 96]"))
    record = summary.to_dict()
    assert (record["architecture"], record["backbone"]) == ("hard_sharing", "test_resnet")
    assert (record["head"], record["input"]) == ("fpn", (64, 96))
    assert record["gflop"] == summary.total.gflop
    assert record["groups"]["semseg"]["parameters"] == summary.groups["semseg"].parameters
    assert (
        summary.activation_mib
        == trace_training_forward(build(make_tiny_experiment()).to("meta"), SIZE).activation_bytes
        / 2**20
    )
