"""BridgeNet as an option of InvPT: published size, equations in plain torch, special cases."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.decoders.invpt_bridge import BridgeStage, PatternPropagation
from densemtl.decoders.invpt_scales import Scales
from densemtl.errors import ConfigError
from densemtl.tasks.base import Task
from densemtl.types import FeatureInfo
from tests.decoders.test_invpt import (
    NYUD,
    PASCAL,
    PYRAMID,
    SMALL,
    VIT,
    build,
    conv_block,
    gelu,
    linear,
    make_features,
    normalize,
    randomize_linear_layers,
    upsample,
)
from tests.decoders.test_published_parameter_counts import make_tasks
from tests.helpers.decoder_cases import batch_norm, conv, randomize_batch_norms
from tests.helpers.exact import assert_same

BRIDGE = {"exchange": "bridge"}


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task(name) for name in ("semseg", "depth", "normals")]


@pytest.mark.parametrize(
    ("width", "outputs", "depth", "parameters"),
    [
        (768, NYUD, 18, 133_128_949),
        (1024, PASCAL, 12, 172_209_008),
    ],
)
def test_parameters_equal_published_code(
    width: int, outputs: tuple[int, ...], depth: int, parameters: int
) -> None:
    """Parameters of the decoder with ViT-B and ViT-L.

    They equal those of the published code but for its unused layers: the convolution of the block
    L/4, the 1x1 convolution of the first stage, and a LayerNorm. Multiply-adds differ by 0.02 %.
    """
    info = FeatureInfo((width,) * 4, (16,) * 4)
    with torch.device("meta"):
        decoder = build(info, make_tasks("task", outputs), **BRIDGE, refine_depth=depth)
    heads = 577 * sum(outputs)
    assert sum(each.numel() for each in decoder.parameters()) - heads == parameters


def split_heads(x: Tensor) -> list[Tensor]:
    """Return the channels of each of two heads of tokens (B, N, D)."""
    return list(x.chunk(2, dim=2))


def strided_query(x: Tensor, layers: nn.Sequential) -> Tensor:
    weight = layers[0].weight
    x = F.conv2d(x, weight, stride=2, padding=1, groups=len(weight))
    return batch_norm(x, layers[1])


def channels_last(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(x.movedim(1, 3)).movedim(3, 1)


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
def test_pattern_propagation_equals_equations() -> None:
    """The attention logits of all tasks and heads are mixed for each task."""
    torch.manual_seed(0)
    module = PatternPropagation(["a", "b"], 8, 2)
    randomize_linear_layers(randomize_batch_norms(module))
    maps = {"a": torch.randn(2, 8, 5, 6), "b": torch.randn(2, 8, 5, 6)}
    logits, values = [], {}
    for task, x in maps.items():
        normalized = channels_last(x, lambda y, t=task: normalize(y, module.norms[t]))
        ones = F.avg_pool2d(torch.ones_like(x), 3, 2, 1)
        pooled = F.avg_pool2d(normalized, 3, 2, 1) / ones
        tokens = [strided_query(normalized, module.queries[task]), pooled, pooled]
        layers = module.projections[task]
        q, k, values[task] = (
            linear(y.flatten(2).mT, layer) for y, layer in zip(tokens, layers, strict=True)
        )
        pairs = zip(split_heads(q), split_heads(k), strict=True)
        logits += [one @ other.mT / 8**0.5 for one, other in pairs]
    found = module(maps)
    for task, x in maps.items():
        weight, bias = module.mixes[task].weight[:, :, 0, 0], module.mixes[task].bias
        heads = []
        for head, value in enumerate(split_heads(values[task])):
            mixed = sum(w * y for w, y in zip(weight[head], logits, strict=True)) + bias[head]
            heads.append(mixed.exp() / mixed.exp().sum(2, keepdim=True) @ value)
        tokens = linear(torch.cat(heads, 2), module.outputs[task])
        x = x + upsample(tokens.mT.reshape(2, 8, 3, 3), (5, 6))
        norm, first, _, second = module.mlps[task]
        hidden = gelu(linear(normalize(x.movedim(1, 3), norm), first))
        assert_same(found[task], x + linear(hidden, second).movedim(3, 1))


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("is_first", [True, False])
def test_bridge_stage_equals_equations(is_first: bool) -> None:
    torch.manual_seed(0)
    before = None if is_first else 12
    stage = BridgeStage(["a", "b"], before, 8, 2, 2, 6, depth=4)
    randomize_linear_layers(randomize_batch_norms(stage))
    for block in (block for blocks in stage.refinements.values() for block in blocks):
        for index in (0, 3, 6):
            block[index].weight.normal_()
    channels, small = (8, (5, 6)) if is_first else (12, (3, 3))
    maps = {name: torch.randn(2, channels, *small) for name in "ab"}
    level, earlier = torch.randn(2, 6, 4, 7), torch.randn(2, 12, 2, 4)
    found, bridge = stage(maps, level, (5, 6), None if is_first else earlier)
    *first, projection, norm, _ = stage.skip
    for layer in first:
        level = conv(level, layer)
    start = batch_norm(conv(level, projection), norm).clamp(min=0)
    for task, (one, other) in stage.enlargements.items():
        x = conv_block(upsample(maps[task], (5, 6)), one, dilation=2)
        maps[task] = conv_block(x, other, dilation=2)
    normalized = [
        channels_last(x, lambda y: normalize(y, stage.norm1)) for x in (start, *maps.values())
    ]
    layer = stage.attention
    query = linear(strided_query(normalized[0], stage.query).flatten(2).mT, layer.to_query)
    windows = [F.avg_pool2d(x, 2, ceil_mode=True).flatten(2).mT for x in normalized[1:]]
    key, value = (linear(torch.cat(windows, 1), each) for each in (layer.to_key, layer.to_value))
    heads = [
        (q @ k.mT / 8**0.5).softmax(2) @ v
        for q, k, v in zip(split_heads(query), split_heads(key), split_heads(value), strict=True)
    ]
    attended = linear(torch.cat(heads, 2), layer.to_output).mT.reshape(2, 8, 2, 4)
    restored = F.conv2d(
        upsample(attended, (4, 7)), stage.restore.weight, stage.restore.bias, padding=1, groups=8
    )
    x = start + restored
    one, _, other = stage.mlp
    change = channels_last(x, lambda y: linear(gelu(linear(normalize(y, stage.norm2), one)), other))
    expected = x + change
    if not is_first:
        expected = expected + upsample(conv(earlier, stage.reduce), (4, 7))
    assert_same(bridge, expected)
    for task, x in maps.items():
        for block, dilation in zip(stage.refinements[task], (1, 2, 5, 1), strict=True):
            y = conv(torch.cat([x, upsample(expected, (5, 6))], 1), block[0])
            y = gelu(batch_norm(y, block[1]))
            y = F.conv2d(y, block[3].weight, padding=dilation, dilation=dilation, groups=4)
            x = x + conv(gelu(batch_norm(y, block[4])), block[6])
        assert_same(found[task], x)


@pytest.mark.parametrize("info", [VIT, PYRAMID, FeatureInfo((6,), (32,))])
def test_bridge_reaches_every_parameter(tasks: list[Task], info: FeatureInfo) -> None:
    decoder = build(info, tasks, **SMALL, **BRIDGE, refine_depth=2)
    predictions = decoder.decode_features(make_features(info, height=70, width=90))
    outputs = (*predictions.logits.values(), *predictions.aux_logits[0].values())
    sum(each.square().mean() for each in outputs).backward()
    assert all(each.grad is not None for each in decoder.parameters())
    grouped = [id(each) for group in decoder.parameter_groups().values() for each in group]
    assert sorted(grouped) == sorted(id(each) for each in decoder.parameters())


def test_initial_width_that_heads_do_not_divide_raises_config_error() -> None:
    with pytest.raises(ConfigError, match=r"decoder\.initial_width: must be divisible by 3 for 3"):
        build(VIT, make_tasks("task", (1,)), width=12, initial_width=4, heads=3, **BRIDGE)


def test_levels_of_bridge() -> None:
    """The stages read the blocks L, 3L/4 and L/2 of a ViT."""
    assert Scales.of(VIT, 3, skipped=0).levels == (3, 2, 1)


@torch.no_grad()
def test_sharing_weights_are_mean_attention_of_the_bridge(tasks: list[Task]) -> None:
    decoder = build(VIT, tasks, **SMALL, **BRIDGE, refine_depth=1).eval()
    decoder.forward = decoder.decode_features  # type: ignore[method-assign, assignment]
    found = decoder.sharing_weights(make_features(VIT))  # type: ignore[arg-type]
    for each in found.values():
        assert (each.tasks, each.sources) == (("bridge",), ("semseg", "depth", "normals"))
        torch.testing.assert_close(each.weights.sum(1), torch.ones(1))
