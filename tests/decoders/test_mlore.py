"""MLoRE: published size, equations in plain torch, merged convolutions and special cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from densemtl.backbones.backbone import Backbone
from densemtl.decoders.mlore import MLoRE
from densemtl.decoders.mlore_block import ExpertBlock
from densemtl.decoders.mlore_router import (
    AttentionPool,
    NoisyTopKRouter,
    compute_gate_variation,
    select_top_k,
)
from densemtl.errors import ConfigError
from densemtl.heads.linear import LinearHead
from densemtl.layers.low_rank_experts import LowRankExperts, convolve_each
from densemtl.tasks.base import Task
from densemtl.types import FeatureInfo
from tests.decoders.test_invpt import FixedFeatures, gelu, make_features, normalize, upsample
from tests.decoders.test_published_parameter_counts import make_tasks
from tests.helpers.decoder_cases import batch_norm, conv, randomize_batch_norms
from tests.helpers.exact import assert_same

NAMES = ["semseg", "depth", "normals"]
NYUD, PASCAL = (40, 1, 3, 1), (21, 7, 2, 3, 1)
NYUD_L = {"width": 768, "rank_step": 16, "task_rank": 16, "renormalize": True}
PASCAL_L = {"width": 452, "task_rank": 72}
PASCAL_B: dict[str, Any] = {}
PASCAL_S = {"width": 192, "rank_step": 4, "min_rank": 8, "task_rank": 32}
SMALL = {"width": 8, "experts": 4, "min_rank": 2, "rank_step": 1, "task_rank": 3, "top_k": 2}
VIT = FeatureInfo((6,) * 4, (16,) * 4)
PYRAMID = FeatureInfo((4, 5, 6), (4, 8, 16))


def build(info: FeatureInfo, tasks: Sequence[Any], **options: Any) -> MLoRE:
    def make_backbone() -> Backbone:
        return FixedFeatures(info)  # type: ignore[return-value]

    return MLoRE(make_backbone, LinearHead, tasks, **options)


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task(name) for name in NAMES]


@pytest.mark.parametrize(
    ("options", "width", "outputs", "parameters", "multiply_adds"),
    [
        (NYUD_L, 1024, NYUD, 226_215_952 + 21_277_485, 707.647e9 + 343.014e9),
        (PASCAL_L, 1024, PASCAL, 94_326_064 + 9_215_862, 314.131e9 + 150.881e9),
        (PASCAL_B, 768, PASCAL, 154_235_220 + 18_463_394, 500.236e9 + 302.346e9),
        (PASCAL_S, 384, PASCAL, 18_525_364 + 1_668_322, 63.166e9 + 27.286e9),
    ],
    ids=["nyud-l", "pascal-l", "pascal-b", "pascal-s"],
)
def test_size_equals_published_code(
    options: dict[str, Any],
    width: int,
    outputs: tuple[int, ...],
    parameters: int,
    multiply_adds: float,
) -> None:
    """Parameters and multiply-adds of the decoder and the heads.

    The linear layer of each router over all pixels, with one weight per pixel and a bias, is
    replaced by the score of the attention pooling, with one weight per channel. Each router has one
    1x1 convolution after the mean instead of before, which is less than 0.3 % of the computation.
    """
    size = (28, 36) if outputs == NYUD else (32, 32)
    with torch.device("meta"):
        decoder = build(
            FeatureInfo((width,) * 4, (16,) * 4), make_tasks("task", outputs), **options
        )
        features = [torch.empty(1, width, *size) for _ in range(4)]
        with FlopCounterMode(display=False) as counter:
            decoder.eval().decode_features(features)
    channels = decoder.projections[0].out_channels
    routers = 2 * 4 * len(outputs)
    replaced = routers * (size[0] * size[1] + 1 - channels)
    assert sum(each.numel() for each in decoder.parameters()) == parameters - replaced
    assert counter.get_total_flops() / 2 == pytest.approx(multiply_adds, rel=3e-3)


def test_merged_convolutions_need_the_multiply_adds_of_one_convolution() -> None:
    """Compare with the published code for NYUD-v2 and ViT-L with merged convolutions.

    The products of the convolutions of each expert are counted in addition: the published code
    computes them before.
    """
    pixels, width, rank_sum = 28 * 36, 768, sum(range(16, 241, 16))
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder = build(FeatureInfo((1024,) * 4, (16,) * 4), make_tasks("task", NYUD), **NYUD_L)
        decoder.eval().decode_features([torch.empty(1, 1024, 28, 36) for _ in range(4)])
    products = 8 * 9 * width**2 * (rank_sum + 4 * 16)
    mixtures = 32 * 9 * width**2 * (15 + 1)
    published = 456.099e9 / 2 + 686.028e9 / 2
    router = 32 * (width // 4) ** 2 * pixels
    expected = published + products + mixtures - router
    assert counter.get_total_flops() / 2 == pytest.approx(expected, rel=1e-3)


def randomize(decoder: nn.Module) -> None:
    """Sample all parameters and statistics that are constant at initialization."""
    randomize_batch_norms(decoder)  # type: ignore[arg-type]
    for layer in decoder.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.weight.normal_()
            layer.bias.normal_()
        if isinstance(layer, AttentionPool):
            layer.score.weight.normal_()


def route(x: Tensor, router: Any, top_k: int, renormalize: bool) -> tuple[Tensor, Tensor]:
    """Return gates (B, E) and the weight of the convolution of the task (B,)."""
    pixels = conv(x, router.pixels[0]).movedim(1, 3)
    mean = conv(gelu(normalize(pixels, router.pixels[1])).movedim(3, 1), router.mean).mean((2, 3))
    weight = torch.einsum("c,bchw->bhw", router.pool[0].score.weight[0, :, 0, 0], x).exp()
    pooled = torch.einsum("bhw,bchw->bc", weight / weight.sum((1, 2), keepdim=True), x)
    pooled = gelu(normalize(pooled, router.pool[1]))[:, :, None, None]
    joint = torch.cat([mean, conv(pooled, router.pool[3])[:, :, 0, 0]], 1)
    outputs = conv(joint[:, :, None, None], router.score)[:, :, 0, 0]
    count = router.num_experts
    gates = torch.zeros(len(x), count)
    for row, scores in enumerate(outputs[:, :count].exp()):
        best = sorted(range(count), key=lambda index: -scores[index].item())[:top_k]
        total = sum(scores[index] for index in best) if renormalize else scores.sum()
        for index in best:
            gates[row, index] = scores[index] / total
    return gates, outputs[:, -1]


def low_rank(x: Tensor, layer: Any, index: int) -> Tensor:
    """Apply one expert as two convolutions."""
    part = slice(sum(layer.ranks[:index]), sum(layer.ranks[: index + 1]))
    reduced = F.conv2d(x, layer.reduce.weight[part], layer.reduce.bias[part], padding=1)
    return F.conv2d(reduced, layer.expand.weight[:, part], layer.biases[index])


def run_block(
    maps: dict[str, Tensor], block: Any, top_k: int, renormalize: bool
) -> dict[str, Tensor]:
    outputs = {}
    for task, x in maps.items():
        branch = block.branches[task]
        z = conv(x, branch.project)
        gates, scale = route(z, branch.router, top_k, renormalize)
        experts = [low_rank(z, block.experts, e) * gates[:, e, None, None, None] for e in range(4)]
        y = batch_norm(sum(experts[1:], start=experts[0]), branch.expert_norm)
        y = y + scale[:, None, None, None] * low_rank(z, branch.own, 0) + conv(z, block.generic)
        outputs[task] = conv(gelu(batch_norm(y, branch.output[0])), branch.output[2])
    return outputs


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("info", [VIT, PYRAMID], ids=["vit", "pyramid"])
def test_equations(tasks: list[Task], info: FeatureInfo, renormalize: bool) -> None:
    decoder = build(info, tasks, **SMALL, renormalize=renormalize)
    randomize(decoder)
    features = make_features(info, height=72, width=88)
    size = features[0].shape[2:]
    levels = []
    for feature, project, blocks in zip(features, decoder.projections, decoder.blocks, strict=True):
        maps = dict.fromkeys(NAMES, conv(feature, project))
        for block in blocks:
            maps = run_block(maps, block, 2, renormalize)
        levels.append(maps)
    found = decoder.decode_features(features)
    assert not found.aux_losses
    for task in NAMES:
        resized = [upsample(level[task], size) for level in levels]
        first, norm, _, last = decoder.fusions[task].score
        scores = conv(gelu(batch_norm(conv(torch.cat(resized, 1), first), norm)), last).exp()
        x = torch.einsum("blhw,lbchw->bchw", scores / scores.sum(1, True), torch.stack(resized))
        x = upsample(x, [4 * side for side in size]) if info is VIT else x
        first, norm, _ = decoder.outputs[task]
        x = gelu(batch_norm(conv(x, first), norm))
        assert_same(found.logits[task], conv(x, decoder.heads[task].levels[0]))


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("info", [VIT, PYRAMID], ids=["vit", "pyramid"])
def test_merged_convolutions_give_the_same_predictions(
    tasks: list[Task], info: FeatureInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = build(info, tasks, **SMALL)
    features = make_features(info)
    used: list[bool] = []

    def convolve(*args: Any) -> Tensor:
        used.append(True)
        return convolve_each(*args)

    monkeypatch.setattr("densemtl.decoders.mlore_block.convolve_each", convolve)
    with torch.no_grad():
        randomize(decoder)
        merged = decoder.decode_features(features).logits
    assert len(used) == 2 * len(NAMES) * len(info)
    separate = decoder.decode_features(features).logits
    assert len(used) == 2 * len(NAMES) * len(info)
    for task in NAMES:
        assert_same(merged[task], separate[task].detach())
        assert (separate[task][0] - separate[task][1]).abs().max() > 1e-6


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
def test_merged_experts_equal_separate_ones_at_the_border() -> None:
    experts, feature, weights = (
        LowRankExperts(5, [2, 7, 1]),
        torch.randn(3, 5, 1, 4),
        torch.rand(3, 3),
    )
    terms = [low_rank(feature, experts, e) * weights[:, e, None, None, None] for e in range(3)]
    expected = terms[0] + terms[1] + terms[2]
    assert_same(experts(feature, weights), expected)
    assert_same(convolve_each(feature, experts.merge().mix(weights)), expected)


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
def test_expert_of_full_rank_is_a_convolution() -> None:
    experts, plain = LowRankExperts(4, [4]), nn.Conv2d(4, 4, 3, padding=1)
    experts.reduce.load_state_dict(plain.state_dict())
    experts.expand.weight.copy_(torch.eye(4)[:, :, None, None])
    experts.biases.zero_()
    feature = torch.randn(2, 4, 6, 5)
    assert_same(experts(feature, torch.ones(2, 1)), plain(feature))


def test_experts_start_like_separate_convolutions() -> None:
    torch.manual_seed(0)
    experts = LowRankExperts(64, [4, 64])
    for rank, part in zip((4, 64), experts.expand.weight.split((4, 64), dim=1), strict=True):
        assert part.abs().max().item() == pytest.approx(rank**-0.5, rel=0.05)
    assert experts.biases[0].abs().max().item() == pytest.approx(0.5, rel=0.1)
    assert experts.biases[1].abs().max().item() == pytest.approx(0.125, rel=0.1)


def test_generic_convolution_passes_no_gradient_to_the_projection() -> None:
    block = ExpertBlock(["depth"], 4, [2], 2, 1, renormalize=True)
    branch = block.branches["depth"]
    with torch.no_grad():
        for layer in (block.experts.expand, branch.own.expand):
            layer.weight.zero_()
        for layer in (branch.router.score, branch.router.pixels[0]):
            layer.weight.zero_()
    block({"depth": torch.randn(2, 4, 5, 5)})[0]["depth"].square().sum().backward()
    assert not branch.project.weight.grad.any()
    assert block.generic.weight.grad.any()


def test_single_expert_is_always_selected() -> None:
    router = NoisyTopKRouter(8, 1, 1)
    gates, _ = router(torch.randn(5, 8, 3, 3))
    torch.testing.assert_close(gates, torch.ones(5, 1))


def test_selection() -> None:
    scores = torch.tensor([[0.0, 2.0, 1.0], [5.0, -1.0, 0.0]])
    exps = scores.exp()
    found = select_top_k(scores, 2, renormalize=True)
    expected = torch.stack(
        [
            torch.stack([torch.tensor(0.0), exps[0, 1], exps[0, 2]]) / (exps[0, 1] + exps[0, 2]),
            torch.stack([exps[1, 0], torch.tensor(0.0), exps[1, 2]]) / (exps[1, 0] + exps[1, 2]),
        ]
    )
    torch.testing.assert_close(found, expected)
    partial = select_top_k(scores, 2, renormalize=False)
    torch.testing.assert_close(partial, exps / exps.sum(1, True) * (expected > 0))
    assert (partial.sum(1) < 1).all()


def test_noise_comes_from_the_global_generator_and_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    router, x = NoisyTopKRouter(8, 4, 4), torch.randn(2, 8, 3, 3)
    state = torch.get_rng_state()
    first, second = router(x)[0], router(x)[0]
    torch.set_rng_state(state)
    assert not torch.equal(first, second)
    assert torch.equal(router(x)[0], first)
    router.eval()
    assert torch.equal(router(x)[0], router(x)[0])
    with torch.no_grad():
        router.score.weight[4:8].zero_()
        router.score.bias[4:8].zero_()
    quiet = router(x)[0]
    assert torch.equal(router.train()(x)[0], quiet)


@torch.no_grad()
def test_noise_has_the_predicted_scale() -> None:
    router = NoisyTopKRouter(4, 2, 2)
    router.score.weight.zero_()
    router.score.bias.copy_(torch.tensor([1.0, 0.0, 0.5, -2.0, 0.0]))
    torch.manual_seed(0)
    gates, _ = router(torch.zeros(20_000, 4, 1, 1))
    difference = gates[:, 0].logit()
    assert difference.mean().item() == pytest.approx(1, abs=0.05)
    assert difference.var().item() == pytest.approx(0.5**2 + 2**2, rel=0.05)


@torch.no_grad()
def test_attention_pooling_starts_as_the_mean_and_can_select_a_pixel() -> None:
    pool, x = AttentionPool(3), torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(pool(x), x.mean((2, 3), keepdim=True))
    x[0, 0, 1, 2] = x[1, 0, 3, 4] = 10
    pool.score.weight[0, 0] = 100
    expected = torch.stack([x[0, :, 1, 2], x[1, :, 3, 4]])
    torch.testing.assert_close(pool(x)[:, :, 0, 0], expected)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_load_balancing_loss(tasks: list[Task], weight: float) -> None:
    """Compare with the mean gates of all tasks and images of each block, in plain loops."""
    decoder = build(VIT, tasks, **SMALL, load_balance=weight)
    features = make_features(VIT)
    torch.manual_seed(1)
    losses = decoder.decode_features(features).aux_losses
    torch.manual_seed(1)
    _, gates = decoder._run_blocks(features)
    if not weight:
        assert losses == {}
        return
    total = 0.0
    for level in gates:
        for each in level:
            means = [each[:, :, expert].mean().item() for expert in range(4)]
            mean = sum(means) / 4
            total += sum((value - mean) ** 2 for value in means) / 4 / mean**2
    assert losses["load_balance"].item() == pytest.approx(weight * total, rel=1e-4)
    assert losses["load_balance"].requires_grad


def test_variation_of_equal_and_of_unequal_gates() -> None:
    assert compute_gate_variation(torch.full((2, 5), 0.1)).item() == pytest.approx(0, abs=1e-6)
    single = torch.eye(5)[:1].repeat(3, 1)
    assert compute_gate_variation(single).item() == pytest.approx(4)


@torch.no_grad()
def test_sharing_weights_are_mean_gates(tasks: list[Task]) -> None:
    decoder = build(VIT, tasks, **SMALL, renormalize=True).eval()
    decoder.compute_shared_features = list  # type: ignore[method-assign, assignment]
    found = decoder.sharing_weights(make_features(VIT))  # type: ignore[arg-type]
    assert list(found)[:3] == ["block 1 level 1", "block 2 level 1", "block 1 level 2"]
    assert len(found) == 8
    for each in found.values():
        assert each.sources == ("rank 2", "rank 3", "rank 4", "rank 5")
        torch.testing.assert_close(each.weights.sum(1), torch.ones(3))
        assert each.weights.std() > 0


def test_more_selected_experts_than_experts_raise_config_error() -> None:
    message = "decoder.top_k: must be at most decoder.experts=2"
    with pytest.raises(ConfigError, match=message):
        build(VIT, make_tasks("task", (1,)), experts=2, top_k=3)
