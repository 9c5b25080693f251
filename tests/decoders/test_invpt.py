"""InvPT: published size, equations in plain torch, special cases and sizes of the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from densemtl.backbones.backbone import Backbone
from densemtl.decoders.invpt import InvPT
from densemtl.decoders.invpt_scales import Scales
from densemtl.errors import ConfigError
from densemtl.heads.linear import LinearHead
from densemtl.tasks.base import Task
from densemtl.types import FeatureInfo
from tests.decoders.test_published_parameter_counts import make_tasks
from tests.helpers.decoder_cases import batch_norm, conv, randomize_batch_norms
from tests.helpers.exact import assert_same

NAMES = ["semseg", "depth", "normals"]
NYUD, PASCAL = (40, 1, 3, 1), (21, 7, 2, 3, 1)
SMALL = {"initial_width": 12, "width": 16}
VIT = FeatureInfo((6,) * 4, (16,) * 4)
PYRAMID = FeatureInfo((4, 5, 6, 7), (4, 8, 16, 32))


class FixedFeatures(nn.Module):
    """Backbone whose features are given by the test."""

    def __init__(self, feature_info: FeatureInfo) -> None:
        super().__init__()
        self.feature_info = feature_info


def build(info: FeatureInfo, tasks: Sequence[Any], **options: Any) -> InvPT:
    def make_backbone() -> Backbone:
        return FixedFeatures(info)  # type: ignore[return-value]

    return InvPT(make_backbone, LinearHead, tasks, **options)


def make_features(info: FeatureInfo, *, height: int = 80, width: int = 112) -> list[Tensor]:
    """Return random features of a batch of two images, whose sizes are rounded up."""
    return [
        torch.randn(2, channels, -(-height // stride), -(-width // stride))
        for channels, stride in zip(info.channels, info.strides, strict=True)
    ]


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task(name) for name in NAMES]


@pytest.mark.parametrize(
    ("width", "outputs", "parameters", "multiply_adds", "unused"),
    [
        (1024, NYUD, 91_294_241, 245.919e9, 1024 * 576 * 9),
        (768, PASCAL, 84_248_518, 300.900e9, 768 * 576 * 9),
    ],
)
def test_size_equals_published_code(
    width: int, outputs: tuple[int, ...], parameters: int, multiply_adds: float, unused: int
) -> None:
    """Parameters and multiply-adds of the decoder with ViT-B and ViT-L.

    They equal those of the published code but for its unused layers: the 3x3 convolution of the
    block 3L/4, the 1x1 convolution and the mixture of logits of the first stage, and a LayerNorm.
    `unused` is the number of multiply-adds per pixel of the former, which are counted.
    """
    size = (28, 36) if outputs == NYUD else (32, 32)
    pixels = size[0] * size[1]
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder = build(FeatureInfo((width,) * 4, (16,) * 4), make_tasks("task", outputs)).eval()
        decoder.decode_features([torch.empty(1, width, *size) for _ in range(4)])
    heads = sum(each.numel() for each in decoder.heads.parameters())
    assert heads == 577 * sum(outputs)
    assert sum(each.numel() for each in decoder.parameters()) - heads == parameters
    found = counter.get_total_flops() / 2 - 576 * sum(outputs) * 16 * pixels
    assert found == pytest.approx(multiply_adds - unused * pixels, rel=1e-5)


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + layer.bias


def normalize(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    scale = (centered.square().mean(-1, keepdim=True) + layer.eps).sqrt()
    return centered / scale * layer.weight + layer.bias


def conv_block(x: Tensor, block: nn.Sequential, dilation: int = 1) -> Tensor:
    """Apply convolution, batch normalization and ReLU."""
    layer = block[0]
    x = F.conv2d(x, layer.weight, layer.bias, padding=dilation, dilation=dilation)
    return batch_norm(x, block[1]).clamp(min=0)


def randomize_linear_layers(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.LayerNorm):
            layer.weight.normal_()
            layer.bias.normal_()


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear")


def average(x: Tensor, side: int) -> Tensor:
    """Return the means over windows of 2x2 pixels or means; those at the border may be smaller."""
    while side > 1:
        padding = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
        padded, ones = F.pad(x, padding), F.pad(torch.ones_like(x), padding)
        sums, counts = (
            each.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).sum((3, 5)) for each in (padded, ones)
        )
        x, side = sums / counts, side // 2
    return x


def attend(
    stage: Any, maps: dict[str, Tensor], before: dict[tuple[str, int], Tensor], pool: int
) -> tuple[dict[str, Tensor], dict[tuple[str, int], Tensor]]:
    """Apply the block of a stage task by task and head by head to maps (B, D, H, W).

    `before` are the logits (B, h, w, K) of the stage before for each task and head.
    """
    layer = stage.attention
    normalized = {
        task: normalize(x.movedim(1, 3), stage.norm1).movedim(3, 1) for task, x in maps.items()
    }
    windows = torch.cat([average(x, pool).flatten(2).mT for x in normalized.values()], 1)
    depth = windows.shape[2]
    logits, queries = {}, {}
    for task, x in normalized.items():
        convolution, norm = stage.queries[task]
        weight = convolution.weight
        x = batch_norm(F.conv2d(x, weight, stride=2, padding=1, groups=depth), norm)
        queries[task] = linear(x.movedim(1, 3), layer.to_query)
        keys = linear(windows, layer.to_key)
        for head in range(2):
            part = slice(head * depth // 2, (head + 1) * depth // 2)
            q, k = queries[task][..., part], keys[..., part]
            logits[task, head] = torch.einsum("bhwd,bkd->bhwk", q, k) / depth**0.5
    if layer.mix is not None:
        weight, bias = layer.mix.weight[:, :, 0, 0], layer.mix.bias
        mixed = {}
        for task in maps:
            size = queries[task].shape[1:3]
            earlier = [upsample(before[task, h].movedim(3, 1), size).movedim(1, 3) for h in (0, 1)]
            inputs = [logits[task, 0], logits[task, 1], *earlier]
            for head in range(2):
                terms = [w * x for w, x in zip(weight[head], inputs, strict=True)]
                mixed[task, head] = sum(terms) + bias[head]
        logits = mixed
    values = linear(windows, layer.to_value)
    updated = {}
    for task, x in maps.items():
        heads = []
        for head in range(2):
            part = slice(head * depth // 2, (head + 1) * depth // 2)
            exponentials = logits[task, head].exp()
            shares = exponentials / exponentials.sum(-1, keepdim=True)
            heads.append(torch.einsum("bhwk,bkd->bhwd", shares, values[..., part]))
        attended = linear(torch.cat(heads, -1), layer.to_output).movedim(3, 1)
        x = (x + upsample(attended, x.shape[2:])).movedim(1, 3)
        hidden = linear(normalize(x, stage.norm2), stage.mlp[0])
        updated[task] = (x + linear(gelu(hidden), stage.mlp[2])).movedim(3, 1)
    return updated, logits


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("message", [True, False])
@pytest.mark.parametrize("info", [VIT, PYRAMID], ids=["vit", "pyramid"])
def test_equations(tasks: list[Task], info: FeatureInfo, message: bool) -> None:
    decoder = build(info, tasks, **SMALL, attention_message=message)
    randomize_linear_layers(randomize_batch_norms(decoder))
    features = make_features(info)
    vit, start = info is VIT, features[3]
    start = upsample(start, (3, 4)) if vit else start
    sizes, out_size = [(3, 4), (5, 7), (10, 14)], (20, 28)
    initial, maps, logits = {}, {}, {}
    for task in NAMES:
        first, second = decoder.initial_features[task]
        feature = conv_block(conv_block(start, first), second)
        initial[task] = conv(feature, decoder.initial_heads[task])
        maps[task] = conv(torch.cat([feature, initial[task]], 1), decoder.embeddings[task])
    sums: dict[str, Any] = dict.fromkeys(NAMES, 0)
    for index, stage in enumerate(decoder.stages):
        if index:
            skip = stage.skip(features[2 - index if vit else 3 - index])
            assert skip.shape[2:] == sizes[index]
            for task, (first, second) in stage.enlargements.items():
                x = conv_block(upsample(maps[task], sizes[index]), first, dilation=2)
                maps[task] = conv_block(x, second, dilation=2) + skip
        maps, logits = attend(stage, maps, logits, 2 ** (index + 1))
        joint = torch.cat([maps[task] for task in NAMES], 1).movedim(1, 3)
        parts = normalize(joint, decoder.sum.norms[index]).movedim(3, 1).chunk(3, 1)
        for task, part in zip(NAMES, parts, strict=True):
            x = conv(part, decoder.sum.projections[index - 1][task]) if index else part
            sums[task] = sums[task] + upsample(x, out_size)
    predictions = decoder.decode_features(features)
    for task in NAMES:
        lateral = 0 if vit else conv(features[0], decoder.laterals[0])
        x = conv_block(sums[task] + lateral, decoder.outputs[task])
        assert_same(predictions.aux_logits[0][task], initial[task])
        assert_same(predictions.logits[task], conv(x, decoder.heads[task].levels[0]))


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
def test_mixture_of_own_logits_only_equals_no_message(tasks: list[Task]) -> None:
    with_message = build(VIT, tasks, **SMALL).eval()
    randomize_linear_layers(with_message)
    without = build(VIT, tasks, **SMALL, attention_message=False).eval()
    missing, extra = without.load_state_dict(with_message.state_dict(), strict=False)
    assert not missing
    assert {name.split(".")[3] for name in extra} == {"mix"}
    features = make_features(VIT)
    before = with_message.decode_features(features).logits["depth"]
    for stage in with_message.stages[1:]:
        own_only = torch.cat([torch.eye(2), torch.zeros(2, 2)], dim=1)
        stage.attention.mix.weight.copy_(own_only[:, :, None, None])
        stage.attention.mix.bias.zero_()
    expected = without.decode_features(features).logits["depth"]
    assert (before - expected).abs().max() > 1e-6
    assert_same(with_message.decode_features(features).logits["depth"], expected)


@pytest.mark.parametrize("rows", range(1, 18))
def test_all_stages_have_the_same_number_of_windows(rows: int) -> None:
    """Otherwise attention logits could not be passed on."""
    for info in (VIT, PYRAMID, FeatureInfo((4,) * 4, (4, 8, 8, 8)), FeatureInfo((4, 4), (4, 8))):
        scales = Scales.of(info, 3)
        coarsest = rows * info.strides[-1]
        features = [
            torch.empty(1, 1, coarsest // stride, 1, device="meta") for stride in info.strides
        ]
        sizes = [height for height, _ in scales.get_sizes(features)]
        counts = {-(-size // pool) for size, pool in zip(sizes, scales.pools, strict=True)}
        assert len(counts) == 1


@pytest.mark.parametrize(
    ("strides", "stages", "levels", "pools", "unread"),
    [
        ((4, 8, 16, 32), 3, (3, 2, 1), (2, 4, 8), (0,)),
        ((4, 8, 16, 32), 1, (3,), (2,), (0, 1, 2)),
        ((4, 8, 8, 8), 3, (3, 2, 1), (2, 2, 2), (0,)),
        ((4, 8), 3, (1, 0), (2, 4), ()),
        ((16, 16, 16, 16), 3, (3, 1, 0), (2, 4, 8), ()),
        ((16, 16), 3, (1, 0, 0), (2, 4, 8), ()),
        ((32,), 2, (0, 0), (2, 4), ()),
    ],
)
def test_levels_of_stages(
    strides: tuple[int, ...],
    stages: int,
    levels: tuple[int, ...],
    pools: tuple[int, ...],
    unread: tuple[int, ...],
) -> None:
    scales = Scales.of(FeatureInfo((8,) * len(strides), strides), stages)
    assert (scales.levels, scales.pools, scales.unread_levels) == (levels, pools, unread)


@pytest.mark.parametrize("width", [4, 12])
def test_width_that_heads_do_not_divide_raises_config_error(width: int) -> None:
    message = f"decoder.width: must be divisible by 8 for 2 heads at 3 stages, not {width}"
    with pytest.raises(ConfigError, match=message):
        build(VIT, make_tasks("task", (1,)), width=width, initial_width=4)


@torch.no_grad()
def test_sharing_weights_are_mean_attention(tasks: list[Task]) -> None:
    decoder = build(VIT, tasks, **SMALL).eval()
    attention = decoder.stages[0].attention
    for layer in (attention.to_query, attention.to_key):
        layer.weight.zero_()
    decoder.forward = decoder.decode_features  # type: ignore[method-assign, assignment]
    found = decoder.sharing_weights(make_features(VIT))  # type: ignore[arg-type]
    assert list(found) == ["stage 0", "stage 1", "stage 2"]
    torch.testing.assert_close(found["stage 0"].weights, torch.full((3, 3), 1 / 3))
    for each in found.values():
        torch.testing.assert_close(each.weights.sum(1), torch.ones(3))


def test_initial_weights(tasks: list[Task]) -> None:
    decoder = build(VIT, tasks, initial_width=8, width=64)
    for module in decoder.stages.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.2)
            assert not module.bias.any()
    assert decoder.outputs["depth"][0].weight.std().item() == pytest.approx(0.02, rel=0.05)
