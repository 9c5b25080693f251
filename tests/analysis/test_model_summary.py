"""Tests of model costs against published values, hand calculations and torch's allocator."""

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
from tests.helpers.decoder_cases import get_backbone
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
def test_flops_equal_the_published_implementation(config: str, gflop: float) -> None:
    """GFLOP of the survey's implementation for semseg (40 channels) and depth (1) at 480 x 640.

    That implementation applies the 1x1 convolution of HRNet's levels at the finest size, and
    densemtl at the size of each level.
    """
    model = build(load_experiment(CONFIGS / "nyud" / f"{config}.yaml"))
    flop = count_flops(model.to("meta"), (480, 640))
    mixes = [
        module.out_channels for module in model.modules() if isinstance(module, MultiLevelConv1x1)
    ]
    num_pixels = [19200, 4800, 1200, 300]
    saved = sum(
        2 * out * width * (num_pixels[0] - level_pixels)
        for out in mixes
        for width, level_pixels in zip((18, 36, 72, 144), num_pixels, strict=True)
    )
    assert (sum(flop.values()) + saved) / 1e9 == pytest.approx(gflop, rel=0.01)


@pytest.mark.parametrize("decoder", DECODERS)
def test_costs_of_groups_add_up_to_the_total(decoder: str) -> None:
    backbone = f"backbone.name={get_backbone(decoder)}"
    experiment = make_tiny_experiment(f"decoder.name={decoder}", backbone)
    summary = summarize(experiment)
    groups, tasks = summary.groups, {"semseg", "depth"}
    assert tasks <= groups.keys() <= {"shared", *tasks, "fusion"}
    assert sum(cost.gflop for cost in groups.values()) == pytest.approx(summary.total.gflop)
    counts = [cost.parameters for cost in groups.values()]
    expected = sum(parameter.numel() for parameter in build(experiment).parameters())
    assert sum(counts) == summary.total.parameters == expected


def test_flops_of_a_linear_head_equal_a_hand_calculation() -> None:
    """1x1 convolutions of all levels: 2 FLOP per pixel, input channel and output channel."""
    model = build(make_tiny_experiment("head={name: linear}"))
    spec = model.decoder.backbone.feature_info
    levels = zip(spec.channels, spec.strides, strict=True)
    flop = sum(2 * width * (64 // stride) * (96 // stride) for width, stride in levels)
    assert count_flops(model.to("meta"), SIZE)["depth"] == flop


def test_multiply_adds_of_a_linear_head_equal_a_hand_calculation() -> None:
    """One multiply-add per pixel, input channel and output channel of the 1x1 convolutions."""
    experiment = make_tiny_experiment("head={name: linear}", f"input.size={list(SIZE)}")
    spec = build(experiment).decoder.backbone.feature_info
    levels = zip(spec.channels, spec.strides, strict=True)
    mac = sum(width * (64 // stride) * (96 // stride) for width, stride in levels)
    summary = summarize(experiment)
    assert summary.groups["depth"].gmac == mac / 1e9
    assert summary.to_dict()["gmac"] == summary.total.gflop / 2
    assert summary.to_dict()["groups"]["depth"]["gmac"] == mac / 1e9


def test_costs_of_fusion_equal_a_hand_calculation() -> None:
    """PAD-Net has two 3x3 convolutions at stride 4 for each ordered pair of three tasks."""
    model = build(
        make_tiny_experiment("decoder={name: pad_net, width: 16}", "tasks=[semseg, depth, edge]")
    )
    weights = 3 * 2 * 2 * 9 * 16 * 16
    assert sum(parameter.numel() for parameter in model.parameter_groups()["fusion"]) == weights
    assert count_flops(model.to("meta"), SIZE)["fusion"] == 2 * weights * (64 // 4) * (96 // 4)


class ParameterFreeFusion(HardSharing):
    """Decoder that computes matrix products of features outside of its submodules."""

    def decode_features(self, features: list[torch.Tensor]) -> Predictions:
        last = features[-1].flatten(2)
        return super().decode_features(
            [*features[:-1], (last @ last.mT @ last).view_as(features[-1])]
        )


def test_flops_outside_of_grouped_modules_are_fusion() -> None:
    decoder = ParameterFreeFusion(
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
def test_activation_bytes_equal_memory_after_a_forward_pass(overrides: tuple[str, ...]) -> None:
    """The expected value is the net allocation that torch's profiler reports for a real pass."""
    model = build(make_tiny_experiment(f"input.size={list(SIZE)}", *overrides)).train()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        predictions = model(torch.zeros(2, 3, *SIZE), full_size=False)
    allocated = sum(event.self_cpu_memory_usage for event in profiler.events())
    assert len(predictions.logits) == 2
    assert trace_training_forward(model.to("meta"), SIZE).activation_bytes == pytest.approx(
        allocated / 2, rel=0.01
    )


def test_to_dict_contains_components_and_costs() -> None:
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
