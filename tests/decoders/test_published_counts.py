"""Parameters of whole models, equal to those of the survey's published implementation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from densemtl import components
from densemtl.models.backbone import Backbone

HRNET = ("hrnet_w18_small_v2", 32, "hrnet")
RESNET50 = ("resnet50", 8, "deeplab")
RESNET18 = ("resnet18", 8, "deeplab")
NYUD = (40, 1)
PASCAL = (21, 7, 1, 3, 1)


@pytest.mark.parametrize(
    ("network", "architecture", "outputs", "parameters"),
    [
        (HRNET, "pad_net", NYUD, 7_019_056),
        (HRNET, "mti_net", NYUD, 8_578_179),
        (RESNET50, "cross_stitch", NYUD, 79_292_841),
        (RESNET50, "nddr_cnn", NYUD, 101_591_721),
        (RESNET50, "mtan", NYUD, 72_052_713),
        (RESNET18, "cross_stitch", PASCAL, 79_525_921),
        (RESNET18, "nddr_cnn", PASCAL, 88_318_561),
        (RESNET18, "mtan", PASCAL, 36_613_425),
        (HRNET, "pad_net", PASCAL, 29_304_992),
        (HRNET, "mti_net", PASCAL, 24_494_171),
    ],
)
def test_as_published(
    network: tuple[str, int, str], architecture: str, outputs: tuple[int, ...], parameters: int
) -> None:
    backbone, stride, head = network
    tasks = [SimpleNamespace(name=f"task{i}", channels=each) for i, each in enumerate(outputs)]
    decoder: torch.nn.Module = components.make(
        "decoders",
        architecture,
        lambda: Backbone(backbone, pretrained=False, output_stride=stride),
        lambda spec, channels: components.make("heads", head, spec, channels, options={}),
        tasks,
        options={},
    )
    assert sum(each.numel() for each in decoder.parameters()) == parameters
