"""Parameter counts of complete models, compared with the published code of the survey."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from densemtl import registry
from densemtl.backbones.backbone import Backbone

PLAIN, EXTRA = (), (3, 1)
"""Output channels of auxiliary tasks: none, or the normals and edges of NYUD."""

HRNET = ("hrnet_w18_small_v2", 32, "hrnetv2")
RESNET50 = ("resnet50", 8, "deeplabv3")
RESNET18 = ("resnet18", 8, "deeplabv3")
NYUD = (40, 1)
PASCAL = (21, 7, 1, 3, 1)


@pytest.mark.parametrize(
    ("network", "architecture", "outputs", "extra", "parameters"),
    [
        (HRNET, "pad_net", NYUD, PLAIN, 7_019_056),
        (HRNET, "pad_net", NYUD, EXTRA, 12_161_332),
        (HRNET, "mti_net", NYUD, PLAIN, 8_578_179),
        (HRNET, "mti_net", NYUD, EXTRA, 14_838_121),
        (RESNET50, "cross_stitch", NYUD, PLAIN, 79_292_841),
        (RESNET50, "nddr_cnn", NYUD, PLAIN, 101_591_721),
        (RESNET50, "mtan", NYUD, PLAIN, 72_052_713),
        (RESNET18, "cross_stitch", PASCAL, PLAIN, 79_525_921),
        (RESNET18, "nddr_cnn", PASCAL, PLAIN, 88_318_561),
        (RESNET18, "mtan", PASCAL, PLAIN, 36_613_425),
        (HRNET, "pad_net", PASCAL, PLAIN, 29_304_992),
        (HRNET, "mti_net", PASCAL, PLAIN, 24_494_171),
    ],
)
def test_parameter_counts_equal_published_code(
    network: tuple[str, int, str],
    architecture: str,
    outputs: tuple[int, ...],
    extra: tuple[int, ...],
    parameters: int,
) -> None:
    backbone, stride, head = network
    task_lists = [make_tasks("task", outputs), *([make_tasks("extra", extra)] if extra else [])]
    decoder: torch.nn.Module = registry.create(
        "decoders",
        architecture,
        lambda: Backbone(backbone, pretrained=False, output_stride=stride),
        lambda spec, channels: registry.create("heads", head, spec, channels, options={}),
        *task_lists,
        options={},
    )
    assert sum(each.numel() for each in decoder.parameters()) == parameters


def make_tasks(prefix: str, outputs: tuple[int, ...]) -> list[SimpleNamespace]:
    return [SimpleNamespace(name=f"{prefix}{i}", channels=each) for i, each in enumerate(outputs)]
