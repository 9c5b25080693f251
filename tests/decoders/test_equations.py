"""Comparison of decoders with independent implementations of their equations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.backbones.staged_forward import StageState
from densemtl.decoders.cross_stitch import CrossStitch
from densemtl.decoders.mtan import MTAN
from densemtl.decoders.mti_net import FeaturePropagation, MTINet
from densemtl.decoders.nddr_cnn import NDDRCNN
from densemtl.decoders.pad_net import PADNet
from densemtl.heads.linear import LinearHead
from densemtl.layers.multimodal_distillation import MultiModalDistillation
from densemtl.tasks.base import Task
from tests.helpers.decoder_cases import (
    batch_norm,
    build_backbone,
    conv,
    make_images,
    make_single_task_decoder,
    randomize_batch_norms,
    residual,
)
from tests.helpers.exact import assert_same

pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task("semseg"), make_task("depth")]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def up(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def replace_features(states: list[StageState], features: list[Tensor]) -> list[StageState]:
    return [replace(state, feature=each) for state, each in zip(states, features, strict=True)]


def test_cross_stitch(tasks: list[Task]) -> None:
    decoder = randomize_batch_norms(CrossStitch(build_backbone, LinearHead, tasks))
    x = make_images()
    for unit in decoder.units:
        unit.normal_()
    nets = list(decoder.backbones.values())
    states = [net.run_stem(x) for net in nets]
    pyramid: list[list[Tensor]] = [[], []]
    for stage, unit in enumerate(decoder.units):
        states = [net.run_stage(stage, each) for net, each in zip(nets, states, strict=True)]
        own = [state.feature for state in states]
        features = [torch.zeros_like(own[0]) for _ in own]
        for i in range(2):
            for j in range(2):
                features[i] += unit[i, j][None, :, None, None] * own[j]
            pyramid[i].append(features[i])
        states = replace_features(states, features)
    for task, levels in zip(tasks, pyramid, strict=True):
        expected = decoder.heads[task.name](levels)
        assert_same(decoder(x).logits[task.name], expected)


def test_initial_cross_stitch_rows_sum_to_one(tasks: list[Task]) -> None:
    unit = CrossStitch(build_backbone, LinearHead, tasks, alpha=0.8).units[0]
    torch.testing.assert_close(unit.sum(1), torch.ones_like(unit.sum(1)))
    assert unit[0, 0, 0] == pytest.approx(0.8)


def test_cross_stitch_with_alpha_of_one_equals_single_task_networks(tasks: list[Task]) -> None:
    decoder = randomize_batch_norms(CrossStitch(build_backbone, LinearHead, tasks, alpha=1.0))
    x = make_images()
    for task in tasks:
        expected = make_single_task_decoder(decoder, task)(x).logits[task.name]
        assert torch.equal(decoder(x).logits[task.name], expected)


def test_nddr_with_alpha_of_one_is_close_to_single_task_networks(
    tasks: list[Task],
) -> None:
    """The initial BN divides by sqrt(1 + eps); the ReLU does not change features after a ReLU."""
    decoder, x = NDDRCNN(build_backbone, LinearHead, tasks, alpha=1.0).eval(), make_images()
    for task in tasks:
        expected = make_single_task_decoder(decoder, task)(x).logits[task.name]
        torch.testing.assert_close(decoder(x).logits[task.name], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shortcut", [False, True])
def test_nddr(tasks: list[Task], shortcut: bool) -> None:
    decoder = randomize_batch_norms(NDDRCNN(build_backbone, LinearHead, tasks, shortcut=shortcut))
    x = make_images()

    def reduce_features(level: int, features: list[Tensor]) -> list[Tensor]:
        joined = torch.cat(features, 1)
        return [batch_norm(conv(joined, r[0]), r[1]).clamp(min=0) for r in decoder.layers[level]]

    nets = list(decoder.backbones.values())
    states = [net.run_stem(x) for net in nets]
    states = replace_features(states, reduce_features(0, [state.feature for state in states]))
    pyramid: list[list[Tensor]] = [[], []]
    for stage in range(4):
        states = [net.run_stage(stage, each) for net, each in zip(nets, states, strict=True)]
        features = reduce_features(stage + 1, [state.feature for state in states])
        states = replace_features(states, features)
        for levels, feature in zip(pyramid, features, strict=True):
            levels.append(feature)
    for index, task in enumerate(tasks):
        levels = pyramid[index]
        if shortcut:
            joined = torch.cat([up(level, levels[-1]) for level in levels], 1)
            levels[-1] = conv(joined, decoder.shortcuts[index])
        expected = decoder.heads[task.name](levels)
        assert_same(decoder(x).logits[task.name], expected)


def test_nddr_is_initialized_as_weighted_sum_of_corresponding_channels(tasks: list[Task]) -> None:
    weight = NDDRCNN(build_backbone, LinearHead, tasks).layers[1][1][0].weight[:, :, 0, 0]
    width = len(weight)
    torch.testing.assert_close(weight[:, width:], 0.9 * torch.eye(width))
    torch.testing.assert_close(weight[:, :width], 0.1 * torch.eye(width), rtol=1e-5, atol=1e-6)


def test_mtan(tasks: list[Task]) -> None:
    """test_resnet has one block per stage, so the input of the last block is that of the stage."""
    decoder, x = randomize_batch_norms(MTAN(build_backbone, LinearHead, tasks)), make_images()
    states = [decoder.backbone.run_stem(x)]
    for stage in range(4):
        states.append(decoder.backbone.run_stage(stage, states[-1]))
    entering = [state.feature for state in states]
    for task in tasks:
        attended: list[Tensor] = []
        for stage, mask in enumerate(decoder.attention[task.name]):
            leaving = entering[stage + 1]
            inputs = [up(entering[stage], leaving)]
            if stage:
                refined = residual(attended[-1], decoder.refine[stage - 1])
                inputs.append(F.max_pool2d(refined, 2))
            hidden = batch_norm(conv(torch.cat(inputs, 1), mask[0]), mask[1]).clamp(min=0)
            attended.append(batch_norm(conv(hidden, mask[3]), mask[4]).sigmoid() * leaving)
        expected = decoder.heads[task.name](attended)
        assert_same(decoder(x).logits[task.name], expected)


def distill(module: MultiModalDistillation, features: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for target in features:
        out[target] = features[target].clone()
        for source, message in module.messages[target].items():
            assert source != target
            content = conv(features[source], message.content)
            out[target] += content * conv(features[source], message.gate).sigmoid()
    return out


@pytest.mark.parametrize("feature", ["all", "last"])
def test_pad_net(tasks: list[Task], feature: str) -> None:
    decoder = randomize_batch_norms(
        PADNet(build_backbone, LinearHead, tasks, feature=feature, width=16)
    )
    x = make_images()
    levels = decoder.backbone(x)
    start = levels[-1]
    if feature == "all":
        joined = torch.cat([up(level, levels[0]) for level in levels], 1)
        start = batch_norm(conv(joined, decoder.mix[0]), decoder.mix[1]).clamp(min=0)
    initial = {}
    for task in tasks:
        first, second = decoder.initial_features[task.name]
        initial[task.name] = residual(residual(start, first), second)
    refined = distill(decoder.distillation, initial)
    predictions = decoder(x)
    for task in tasks:
        initial_logits = conv(initial[task.name], decoder.initial_heads[task.name])
        assert_same(predictions.aux_logits[0][task.name], initial_logits)
        (first, second), output = decoder.final_heads[task.name]
        expected = conv(residual(residual(refined[task.name], first), second), output)
        assert_same(predictions.logits[task.name], expected)


@pytest.mark.parametrize("softmax", ["reference_code", "paper"])
def test_feature_propagation(softmax: str) -> None:
    names, width = ["a", "b", "c"], 16
    module = randomize_batch_norms(FeaturePropagation(names, width, softmax))
    features = {name: torch.randn(2, width, 4, 5) for name in names}
    joined = torch.cat([features[name] for name in names], 1)
    mask = conv(residual(residual(joined, module.mask[0]), module.mask[1]), module.mask[2]).exp()
    weights = torch.empty_like(mask)
    for channel in range(mask.shape[1]):
        if softmax == "paper":
            group = [channel % width + width * task for task in range(3)]
        else:
            group = [3 * (channel // 3) + step for step in range(3)]
        weights[:, channel] = mask[:, channel] / mask[:, group].sum(1)
    shared = residual(joined * weights, module.reduce)
    propagated = module(features)
    for name in names:
        squeeze, _, excite, _ = module.excite[name].gate
        hidden = F.linear(shared.mean((2, 3)), squeeze.weight, squeeze.bias).clamp(min=0)
        gate = F.linear(hidden, excite.weight, excite.bias).sigmoid()
        expected = shared * gate[:, :, None, None] + features[name]
        assert_same(propagated[name], expected)


def test_mti_net(tasks: list[Task]) -> None:
    decoder, x = randomize_batch_norms(MTINet(build_backbone, LinearHead, tasks)), make_images()
    levels = decoder.backbone(x)
    propagated: dict[str, Tensor] = {}
    scales: list[dict[str, Tensor]] = [{} for _ in levels]
    for scale in (3, 2, 1, 0):
        for task in tasks:
            inputs = [levels[scale]]
            if propagated:
                inputs.append(up(propagated[task.name], levels[scale]))
            first, second = decoder.initial_features[scale][task.name]
            scales[scale][task.name] = residual(residual(torch.cat(inputs, 1), first), second)
        if scale:
            propagated = decoder.feature_propagation[scale - 1](scales[scale])
    refined = [distill(*pair) for pair in zip(decoder.distillation, scales, strict=True)]
    predictions = decoder(x)
    for task in tasks:
        for scale in range(4):
            initial_logits = conv(scales[scale][task.name], decoder.initial_heads[scale][task.name])
            assert_same(predictions.aux_logits[scale][task.name], initial_logits)
        expected = decoder.heads[task.name]([each[task.name] for each in refined])
        assert_same(predictions.logits[task.name], expected)
