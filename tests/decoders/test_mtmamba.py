"""MTMamba and MTMamba++: published size, equations in plain torch, sizes of the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import StochasticDepth

from densemtl.backbones.backbone import Backbone
from densemtl.decoders import mtmamba_blocks
from densemtl.decoders.mtmamba import MTMamba
from densemtl.decoders.mtmamba_blocks import TaskScan
from densemtl.errors import ConfigError
from densemtl.heads.linear import LinearHead
from densemtl.tasks.base import Task
from densemtl.types import FeatureInfo
from tests.decoders.test_invpt import FixedFeatures, make_features, normalize, upsample
from tests.decoders.test_published_parameter_counts import make_tasks
from tests.helpers.decoder_cases import batch_norm, conv, randomize_batch_norms
from tests.helpers.exact import assert_same

NAMES = ["semseg", "depth", "normals"]
NYUD, PASCAL = (40, 1, 3, 1), (21, 7, 2, 3, 1)
SWIN_L = FeatureInfo((192, 384, 768, 1536), (4, 8, 16, 32))
PYRAMID = FeatureInfo((4, 6, 5), (4, 8, 16))
VIT = FeatureInfo((6,) * 4, (16,) * 4)
VERSIONS = ["mtmamba", "mtmamba_plus"]


def build(info: FeatureInfo, tasks: Sequence[Any], **options: Any) -> MTMamba:
    def make_backbone() -> Backbone:
        return FixedFeatures(info)  # type: ignore[return-value]

    return MTMamba(make_backbone, LinearHead, tasks, **options)


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task(name) for name in NAMES]


@pytest.mark.parametrize(
    ("version", "outputs", "parameters", "multiply_adds"),
    [
        ("mtmamba", NYUD, 110_428_416 + 2_369_517, 213.718e9 + 40.281e9),
        ("mtmamba", PASCAL, 137_699_520 + 2_957_602, 270.558e9 + 50.029e9),
        ("mtmamba_plus", NYUD, 119_150_976 + 669_069, 233.637e9 + 10.771e9),
        ("mtmamba_plus", PASCAL, 147_196_224 + 834_178, 292.604e9 + 13.643e9),
    ],
)
def test_size_equals_published_code(
    version: str, outputs: tuple[int, ...], parameters: int, multiply_adds: float
) -> None:
    """Parameters, and multiply-adds without the recurrence, of the decoder with Swin-L."""
    height, width = (448, 576) if outputs == NYUD else (512, 512)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder = build(SWIN_L, make_tasks("task", outputs), version=version).eval()
        decoder.decode_features(
            [
                torch.empty(1, channels, height // stride, width // stride)
                for channels, stride in zip(SWIN_L.channels, SWIN_L.strides, strict=True)
            ]
        )
    assert sum(each.numel() for each in decoder.parameters()) == parameters
    assert counter.get_total_flops() / 2 == pytest.approx(multiply_adds, rel=1e-2)


def norm(x: Tensor, layer: Any) -> Tensor:
    return normalize(x.movedim(1, 3), layer).movedim(3, 1)


def silu(x: Tensor) -> Tensor:
    return x * x.sigmoid()


def run_branch(x: Tensor, branch: Any, source: Tensor | None = None) -> Tensor:
    layer = branch.convolution
    x = conv(x, branch.project)
    x = F.conv2d(x, layer.weight, layer.bias, padding=1, groups=x.shape[1])
    scanned: Tensor = branch.scan(silu(x), source)  # has its own test
    return scanned


def run_scan(x: Tensor, block: Any, source: Tensor | None = None) -> Tensor:
    z = norm(x, block.norm)
    return x + conv(run_branch(z, block.branch, source) * silu(conv(z, block.gate)), block.output)


def exchange(maps: dict[str, Tensor], layer: Any, version: str) -> dict[str, Tensor]:
    joint = torch.cat([maps[task] for task in NAMES], 1)
    if version == "mtmamba_plus":
        first, second, third = layer.shared
        shared = conv(conv(norm(joint, first), second), third)
        return {
            task: run_scan(maps[task], layer.scans[task], conv(shared, layer.sources[task]))
            for task in NAMES
        }
    shared, outputs = run_branch(norm(joint, layer.shared_norm), layer.shared), {}
    for task, x in maps.items():
        z = norm(x, layer.norms[task])
        gate = conv(z, layer.gates[task][0]).sigmoid()
        mixed = gate * shared + (1 - gate) * run_branch(z, layer.branches[task])
        outputs[task] = x + conv(mixed, layer.outputs[task])
    return outputs


def expand(x: Tensor, layers: Any, factor: int) -> Tensor:
    """Write the outputs of each pixel into a square of pixels, one by one."""
    x = conv(x, layers[0])
    height, width = x.shape[2:]
    expanded = torch.zeros(len(x), x.shape[1] // factor**2, factor * height, factor * width)
    for row in range(factor):
        for column in range(factor):
            expanded[:, :, row::factor, column::factor] = x[:, row * factor + column :: factor**2]
    return norm(expanded, layers[2])


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("version", VERSIONS)
def test_equations(tasks: list[Task], version: str) -> None:
    decoder = build(PYRAMID, tasks, version=version, states=3)
    randomize_batch_norms(decoder)
    features = make_features(PYRAMID, height=36, width=44)  # 9x11, 5x6 and 3x3 pixels
    maps = dict.fromkeys(NAMES, features[2])
    for stage, level in zip(decoder.stages, features[1::-1], strict=True):
        for task in NAMES:
            layers = stage.enlargements[task]
            x = upsample(expand(maps[task], layers.expand, 2), level.shape[2:])
            x = conv(torch.cat([x, level], 1), layers.join)
            for block in stage.scans[task]:
                x = run_scan(x, block)
            maps[task] = x
        maps = exchange(maps, stage.exchange, version)
    found = decoder.decode_features(features).logits
    for task in NAMES:
        if version == "mtmamba":
            x = expand(maps[task], decoder.outputs[task], 4)
        else:
            first, second, _ = decoder.outputs[task]
            x = batch_norm(conv(maps[task], first), second).clamp(min=0)
        assert_same(found[task], conv(x, decoder.heads[task].levels[0]))


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
def test_without_memory_a_scan_is_a_function_of_each_pixel() -> None:
    """A decay rate of infinity removes the states, and outputs do not depend on other pixels."""
    torch.manual_seed(0)
    block = mtmamba_blocks.TaskScan(4, 2, 0.0)
    block.branch.scan.log_decay.fill_(torch.inf)
    block.branch.convolution.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    x = torch.randn(2, 4, 5, 6)
    pixel = block(x[:, :, 2:3, 4:5])
    assert_same(block(x)[:, :, 2:3, 4:5], pixel)


@pytest.mark.parametrize(
    ("info", "options", "size"),
    [
        (PYRAMID, {}, (20, 28)),
        (PYRAMID, {"finest_stride": 8}, (10, 14)),
        (PYRAMID, {"version": "mtmamba"}, (80, 112)),
        (PYRAMID, {"version": "mtmamba", "finest_stride": 8}, (40, 56)),
        (VIT, {"pyramid_width": 8}, (20, 28)),
        (VIT, {"pyramid_width": 8, "finest_stride": 16}, (5, 7)),
    ],
)
def test_sizes_of_logits_and_used_parameters(
    tasks: list[Task], info: FeatureInfo, options: dict[str, Any], size: tuple[int, int]
) -> None:
    decoder = build(info, tasks, states=2, **options)
    logits = decoder.decode_features(make_features(info)).logits
    assert all(each.shape[2:] == size for each in logits.values())
    sum(each.square().sum() for each in logits.values()).backward()
    assert all(each.grad is not None for each in decoder.parameters())


@torch.no_grad()
def test_drop_path_keeps_the_mean_and_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    drop, x = TaskScan(2, 1, drop_path=0.25).drop, torch.ones(4000, 2, 1, 1)
    dropped = drop(x)
    values = {round(value, 4) for value in dropped.flatten().tolist()}
    assert values == {0.0, round(1 / 0.75, 4)}
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(x), x)


def test_drop_rates_decrease_to_zero() -> None:
    decoder = build(SWIN_L, make_tasks("task", (1,)), states=1, drop_path=0.2)
    rates = [each.p for each in decoder.modules() if isinstance(each, StochasticDepth)]
    assert rates == pytest.approx([0.2 - 0.025 * index for index in range(9)])


@torch.no_grad()
def test_sharing_weights_are_mean_gates(tasks: list[Task]) -> None:
    image = make_features(PYRAMID)
    plus = build(PYRAMID, tasks, states=1)
    assert plus.sharing_weights(image) == {}  # type: ignore[arg-type]
    decoder = build(PYRAMID, tasks, version="mtmamba", states=1).eval()
    decoder.forward = decoder.decode_features  # type: ignore[method-assign, assignment]
    gate: Any = decoder.stages[1].exchange.gates["depth"][0]  # type: ignore[union-attr, index]
    gate.weight.zero_()
    found = decoder.sharing_weights(image)  # type: ignore[arg-type]
    assert list(found) == ["stage 0", "stage 1"]
    torch.testing.assert_close(found["stage 1"].weights[1], torch.tensor([0.5, 0.5]))
    for each in found.values():
        torch.testing.assert_close(each.weights.sum(1), torch.ones(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"finest_stride": 16}, "decoder.finest_stride: only 1 of the levels of strides 4, 8, 16"),
        ({"drop_path": 1.0}, "decoder.drop_path: must be below 1"),
    ],
)
def test_wrong_options_raise_config_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(PYRAMID, make_tasks("task", (1,)), **options)
