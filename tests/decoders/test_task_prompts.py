"""Task prompts: equations in plain torch, published size, masked prompts, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.eva import EvaAttention
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode

import densemtl
from densemtl.adapters.layers import add_adapter
from densemtl.adapters.low_rank import LowRankAdapter
from densemtl.adapters.merging import merge_adapters
from densemtl.backbones.backbone import Backbone
from densemtl.backbones.prompt_tokens import PromptedLevel, compute_scores, run_with_prompts
from densemtl.decoders.task_prompts import TaskPrompts
from densemtl.decoders.task_prompts_layers import ChannelScores, PromptReading, enlarge_windows
from densemtl.errors import ConfigError, ModelError
from densemtl.heads.linear import LinearHead
from densemtl.tasks.base import Task
from densemtl.types import FeatureInfo
from tests.decoders.test_invpt import FixedFeatures, gelu, linear, normalize, upsample
from tests.decoders.test_published_parameter_counts import make_tasks
from tests.helpers.adapter_cases import build_adapted, build_backbone, randomize_adapters
from tests.helpers.decoder_cases import batch_norm, conv, randomize_batch_norms
from tests.helpers.exact import assert_same

NAMES = ["semseg", "depth", "normals"]
SMALL = {"level_width": 6, "width": 8}
SIZE = (48, 80)
"""Images whose maps have 3x5 pixels."""


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    return [make_task(name) for name in NAMES]


def build(tasks: list[Task], backbone: str = "test_vit", **options: Any) -> TaskPrompts:
    return TaskPrompts(lambda: build_backbone(backbone), LinearHead, tasks, **SMALL, **options)


@pytest.mark.parametrize(
    ("options", "channels", "heads", "outputs", "size", "parameters", "multiply_adds"),
    [
        (
            {"level_width": 768, "width": 768, "cross_task": False, "channel_windows": 4},
            1024,
            16,
            (40, 1, 3, 1),
            (28, 36),
            138_498_048 + 21_277_485,
            139.519e9 + 343.014e9,
        ),
        (
            {"level_width": 780, "width": 1024, "channel_windows": 4},
            768,
            12,
            (21, 7, 2, 3, 1),
            (32, 32),
            265_762_580 + 47_236_130,
            272.0e9 + 773.664e9,
        ),
        (
            {"channel_windows": 1},
            1024,
            16,
            (21, 7, 2, 3, 1),
            (32, 32),
            41_040_780 + 5_529_684,
            41.971e9 + 90.512e9,
        ),
    ],
    ids=["nyud-l", "pascal-b", "pascal-l"],
)
def test_size_equals_published_code(
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    channels: int,
    heads: int,
    outputs: tuple[int, ...],
    size: tuple[int, int],
    parameters: int,
    multiply_adds: float,
) -> None:
    """Parameters and multiply-adds of the decoder and the heads, without those of the backbone.

    The prompts and the maps of the channel scores belong to the backbone in published code. The
    multiply-adds include sums over tasks and windows here, which are less than 0.2 %.
    """
    monkeypatch.setattr("densemtl.decoders.task_prompts.prepare_prompts", lambda *_: None)
    monkeypatch.setattr("densemtl.decoders.task_prompts.get_num_heads", lambda _: heads)
    info = FeatureInfo((channels,) * 4, (16,) * 4)
    count = len(outputs)
    with torch.device("meta"):
        decoder = TaskPrompts(
            lambda: FixedFeatures(info),  # type: ignore[arg-type, return-value]
            LinearHead,
            make_tasks("task", outputs),  # type: ignore[arg-type]
            **options,
        ).eval()
        level = PromptedLevel(
            torch.empty(1, channels, *size),
            torch.empty(1, count, channels),
            torch.empty(1, count, heads, *size),
            torch.empty(1, count, heads, count),
        )
        with FlopCounterMode(display=False) as counter:
            decoder.decode_levels([level] * 4)
    maps = [each for level in decoder.readings for each in level.channel_scores.parameters()]
    in_backbone = [*decoder.prompts.values(), *maps]
    assert sum(each.numel() for each in decoder.parameters()) == parameters + sum(
        each.numel() for each in in_backbone
    )
    assert counter.get_total_flops() / 2 == pytest.approx(multiply_adds, rel=2e-3)


def run_block(x: Tensor, block: Any, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, the normalized prompts and the scores (B, T, heads, N) of a block."""
    heads, width = block.attn.num_heads, block.attn.head_dim
    tokens = normalize(x, block.norm1)
    joint = linear(tokens, block.attn.qkv).unflatten(2, (3, heads, width))
    scores = torch.einsum("bind,bjnd->bnij", joint[:, :, 0], joint[:, :, 1]) / width**0.5
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    attended = torch.einsum("bnij,bjnd->bind", weights, joint[:, :, 2]).flatten(2)
    x = x + linear(attended, block.attn.proj)
    hidden = gelu(linear(normalize(x, block.norm2), block.mlp.fc1))
    x = x + linear(hidden, block.mlp.fc2)
    return x, tokens[:, :count], scores[:, :, :count].transpose(1, 2)


def score_channels(feature: Tensor, prompts: Tensor, layer: ChannelScores) -> Tensor:
    """Return the scores (B, T, C, H, W) of all pixels by loops over windows."""
    height, width = feature.shape[2:]
    grids = linear(prompts, layer.make_map).unflatten(2, (14, 14))
    products = upsample(grids, (height, width))[:, :, None] * feature[:, None]
    result = torch.zeros_like(products)
    k = layer.windows
    for row in range(height):
        for column in range(width):
            window = [
                products[..., i, j]
                for i in range(height)
                for j in range(width)
                if (i * k // height, j * k // width) == (row * k // height, column * k // width)
            ]
            result[..., row, column] = torch.stack(window).mean(0)
    return result


def predict(decoder: TaskPrompts, image: Tensor) -> dict[str, Tensor]:
    """Compute the logits by the equations of the publication."""
    vit: Any = decoder.backbone.net.model
    count = len(NAMES)
    patches = vit.patch_embed(image)
    size = patches.shape[1:3]
    prompts = torch.stack([decoder.prompts[task] for task in NAMES]).expand(len(image), -1, -1)
    x = torch.cat([prompts, vit._pos_embed(patches)], 1)
    ends = [index * len(vit.blocks) // 4 - 1 for index in range(1, 5)]
    totals: dict[str, Any] = dict.fromkeys(NAMES, 0)
    for number, block in enumerate(vit.blocks):
        x, normalized, scores = run_block(x, block, count)
        if number not in ends:
            continue
        level, first = ends.index(number), count + vit.num_prefix_tokens
        feature = x[:, first:].transpose(1, 2).unflatten(2, size)
        head = feature.shape[1] // scores.shape[2]
        read = []
        for index, task in enumerate(NAMES):
            reading = decoder.readings[level].tasks[task]
            pixels = scores[:, index, :, first:].unflatten(2, size)
            weighed = feature * (1 + pixels.repeat_interleave(head, dim=1))
            reduced = [conv(weighed, reading.reduce)]
            if len(decoder.readings[level].channel_scores):
                factors = score_channels(
                    feature, normalized, decoder.readings[level].channel_scores[0]
                )
                weighed = feature * (1 + factors[:, index])
                reduced.append(conv(weighed, reading.reduce_channels))
            one, three, norm, _, last = reading.fuse
            joint = conv(conv(torch.cat(reduced, 1), one), three)
            read.append(conv(gelu(batch_norm(joint, norm)), last))
        for index, task in enumerate(NAMES):
            mixed = read[index]
            if len(decoder.readings[level].cross_task):
                first_layer, _, second = decoder.readings[level].cross_task[task].layers
                mixed = torch.zeros_like(mixed)
                for source in range(count):
                    hidden = gelu(linear(scores[:, index, :, source], first_layer))
                    mixed = mixed + linear(hidden, second)[:, :, None, None] * read[source]
            totals[task] = totals[task] + mixed
    logits = {}
    for task in NAMES:
        three, norm, _ = decoder.outputs[task]
        x = upsample(totals[task], [4 * side for side in size])
        x = gelu(batch_norm(conv(x, three), norm))
        logits[task] = conv(x, decoder.heads[task].levels[0])
    return logits


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("cross_task", [False, True])
@pytest.mark.parametrize("windows", [0, 2, 4])
def test_equations(tasks: list[Task], cross_task: bool, windows: int) -> None:
    decoder = build(tasks, cross_task=cross_task, channel_windows=windows)
    randomize_batch_norms(decoder)
    for parameter in decoder.backbone.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    image = torch.randn(2, 3, *SIZE)
    found, expected = decoder(image).logits, predict(decoder, image)
    for task in NAMES:
        assert found[task].shape[2:] == (12, 20)
        assert_same(found[task], expected[task])
        assert (found[task][0] - found[task][1]).abs().max() > 1e-6


TINY = {"options": {"embed_dim": 48, "num_heads": 3, "init_values": 1.0}}
EVAS = ["eva02_tiny_patch14_224", "vit_small_patch16_dinov3"]


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["test_vit", *EVAS])
def test_prompts_change_the_image_tokens_only_by_attention(tasks: list[Task], name: str) -> None:
    """If no token may attend to the prompts, the features are those of the backbone alone."""
    options: dict[str, Any] = TINY if name in EVAS else {}
    decoder = TaskPrompts(lambda: build_backbone(name, **options), LinearHead, tasks, **SMALL)
    decoder.eval()
    side = decoder.backbone.feature_info.strides[0]
    image = torch.randn(2, 3, 3 * side, 5 * side)
    vit: Any = decoder.backbone.net.model
    expected = build_backbone(name, **options).eval()(image)
    prompts = torch.stack([decoder.prompts[task] for task in NAMES])
    free = run_with_prompts(decoder.backbone, image, prompts)
    count = len(NAMES) + vit.num_prefix_tokens + 15
    mask = torch.ones(count, count, dtype=torch.bool)
    mask[:, : len(NAMES)] = torch.eye(count, dtype=torch.bool)[:, : len(NAMES)]
    for block in vit.blocks:
        block.register_forward_pre_hook(
            lambda _, args, kwargs: (args, {**kwargs, "attn_mask": mask}), with_kwargs=True
        )
    masked = run_with_prompts(decoder.backbone, image, prompts)
    for level, feature, other in zip(masked, expected, free, strict=True):
        assert_same(level.feature, feature)
        assert (other.feature - feature).abs().max() > 1e-4
    assert (masked[-1].pixel_scores[:, 0] - masked[-1].pixel_scores[:, 1]).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", EVAS)
def test_scores_include_rotary_embeddings(name: str) -> None:
    """The softmax of the scores is the attention of timm, after the insertion of two prompts."""
    vit: Any = build_backbone(name, **TINY).eval().net.model
    layer, first = vit.blocks[0].attn, 2 + vit.num_prefix_tokens
    for parameter in layer.parameters():
        parameter.normal_()
    layer.num_prefix_tokens = first
    rope = vit._pos_embed(vit.patch_embed(torch.randn(1, 3, 112, 112)))[1]
    tokens = torch.randn(2, first + len(rope), 48)
    weights = compute_scores(layer, tokens, 2, rope).softmax(-1)
    values = tokens @ layer.qkv.weight[96:].T
    values = values if layer.v_bias is None else values + layer.v_bias
    attended = torch.einsum("binj,bjnd->bind", weights, values.unflatten(2, (3, 16))).flatten(2)
    assert_same(layer.proj(layer.norm(attended)), layer(tokens, rope=rope)[:, :2])
    assert (
        compute_scores(layer, tokens, 2) - compute_scores(layer, tokens, 2, rope)
    ).abs().max() > 1


@torch.no_grad()
def test_scores_of_zero_leave_the_features_unchanged() -> None:
    reading, feature = PromptReading(8, 2, 4, 5, True).eval(), torch.randn(2, 8, 3, 5)
    found = reading(feature, torch.zeros(2, 2, 3, 5), torch.zeros(2, 8, 4, 4))
    reduced = torch.cat([reading.reduce(feature), reading.reduce_channels(feature)], 1)
    torch.testing.assert_close(found, reading.fuse(reduced))


@torch.no_grad()
def test_one_window_scores_a_channel_by_its_mean_product() -> None:
    scores, feature, prompts = ChannelScores(6, 1), torch.randn(2, 6, 14, 14), torch.randn(2, 3, 6)
    grids = scores.make_map(prompts).view(2, 3, 1, 14, 14)
    expected = (grids * feature[:, None]).mean((3, 4), keepdim=True)
    torch.testing.assert_close(scores(feature, prompts), expected)


def test_windows_cover_all_pixels_in_order() -> None:
    scores = torch.arange(9.0).view(1, 1, 3, 3)
    found = enlarge_windows(scores, torch.zeros(1, 1, 4, 2))
    assert found[0, 0].tolist() == [[0, 1], [0, 1], [3, 4], [6, 7]]


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_softmax_of_the_scores_is_the_attention_of_timm(qk_norm: bool, bias: bool) -> None:
    torch.manual_seed(0)
    layer = Attention(12, 3, qkv_bias=bias, qk_norm=qk_norm, norm_layer=nn.LayerNorm).eval()
    tokens = torch.randn(2, 7, 12)
    weights = compute_scores(layer, tokens, 4).softmax(-1)
    values = layer.qkv(tokens)[..., 24:].unflatten(2, (3, 4))
    attended = torch.einsum("binj,bjnd->bind", weights, values).flatten(2)
    assert_same(layer.proj(attended), layer(tokens)[:, :4])


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(("separate", "adapted"), [(False, False), (True, False), (True, True)])
def test_scores_include_the_biases_of_eva(separate: bool, adapted: bool) -> None:
    layer = EvaAttention(12, 3, qkv_bias_separate=separate, norm_layer=nn.LayerNorm).eval()
    for parameter in (layer.q_bias, layer.v_bias):
        parameter.normal_()
    if adapted:
        adapter = LowRankAdapter(layer.qkv, 2)
        adapter.up.normal_()
        layer.qkv = add_adapter(layer.qkv, adapter)
    tokens = torch.randn(2, 7, 12)
    weights = compute_scores(layer, tokens, 4).softmax(-1)
    values = (layer.qkv(tokens)[..., 24:] + layer.v_bias).unflatten(2, (3, 4))
    attended = torch.einsum("binj,bjnd->bind", weights, values).flatten(2)
    assert_same(layer.proj(layer.norm(attended)), layer(tokens)[:, :4])


@torch.no_grad()
def test_scores_do_not_exceed_the_range_of_fp16() -> None:
    layer = Attention(64, 1)
    layer.qkv.weight.copy_(torch.eye(64).repeat(3, 1))
    scores = compute_scores(layer.half(), torch.full((1, 2, 64), 40.0, dtype=torch.half), 1)
    assert torch.finfo(torch.half).max < 64 * 40**2
    torch.testing.assert_close(scores, torch.full((1, 1, 1, 2), 64 * 40**2 / 8).half())


@pytest.mark.parametrize("targets", [None, ("qkv",), ("fc1",)])
def test_scores_include_the_adapters(tasks: list[Task], targets: tuple[str, ...] | None) -> None:
    make = lambda: build_adapted("test_vit", targets=targets, rank=2)  # noqa: E731
    decoder = randomize_adapters(TaskPrompts(make, LinearHead, tasks, **SMALL)).eval()
    image, merged = torch.randn(2, 3, *SIZE), merge_adapters(decoder)
    with torch.no_grad():
        found, expected = decoder(image).logits, merged(image).logits
        plain = TaskPrompts(make, LinearHead, tasks, **SMALL).eval()
        plain.load_state_dict(decoder.state_dict())
        for module in plain.modules():
            if hasattr(module, "up"):
                module.up.zero_()
        unchanged = plain(image).logits
    for task in NAMES:
        torch.testing.assert_close(found[task], expected[task], rtol=1e-4, atol=1e-5)
        assert (found[task] - unchanged[task]).abs().max() > 1e-4


def test_losses_of_other_tasks_train_a_prompt_but_no_layers_of_its_task(
    tasks: list[Task],
) -> None:
    decoder = build(tasks, cross_task=False, channel_windows=2)
    decoder(torch.randn(2, 3, *SIZE)).logits["depth"].square().sum().backward()
    groups = decoder.parameter_groups()
    assert decoder.prompts["semseg"].grad.any()
    assert any(each is decoder.prompts["semseg"] for each in groups["semseg"])
    layers = [each for each in groups["semseg"] if each is not decoder.prompts["semseg"]]
    assert all(each.grad is None for each in layers)
    assert all(each.grad is not None for each in [*groups["depth"], *groups["shared"]])
    assert groups["fusion"] == []


@torch.no_grad()
def test_sharing_weights_are_means_over_images(tasks: list[Task]) -> None:
    decoder, image = build(tasks).eval(), torch.randn(3, 3, *SIZE)
    found = decoder.sharing_weights(image)
    assert list(found) == [f"level {number}" for number in range(1, 5)]
    levels = run_with_prompts(
        decoder.backbone, image, torch.stack([decoder.prompts[task] for task in NAMES])
    )
    layers = decoder.readings[2].cross_task["depth"].layers
    for source in range(3):
        expected = layers(levels[2].prompt_scores[:, 1, :, source]).mean()
        torch.testing.assert_close(found["level 3"].weights[1, source], expected)
    assert build(tasks, cross_task=False).sharing_weights(image) == {}


class Logits(nn.Module):
    """Decoder that returns a tuple, which can be exported."""

    def __init__(self, decoder: TaskPrompts) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.decoder(image).logits.values())


@torch.no_grad()
def test_exported_network_accepts_any_size_and_batch(tasks: list[Task]) -> None:
    network = Logits(build(tasks[1:], channel_windows=2).eval())
    sides = {axis: 16 * Dim(name, min=2, max=64) for axis, name in ((2, "rows"), (3, "columns"))}
    shapes = {"image": {0: Dim("images", min=1, max=8), **sides}}
    image = torch.randn(2, 3, *SIZE)
    exported = torch.export.export(network, (image,), dynamic_shapes=shapes).module()
    other = torch.randn(1, 3, 80, 96)
    for found, expected in zip(exported(other), network(other), strict=True):
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_patches_of_14_pixels_and_register_tokens(tasks: list[Task]) -> None:
    options = {"patch_size": 14, "reg_tokens": 2}
    make = lambda: Backbone("test_vit", pretrained=False, options=options)  # noqa: E731
    decoder = TaskPrompts(make, LinearHead, tasks, **SMALL).eval()
    logits = decoder(torch.randn(1, 3, 42, 70)).logits
    assert {each.shape[2:] for each in logits.values()} == {(12, 20)}


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ("test_resnet", {}, "'test_resnet' is not a plain ViT of timm: choose e.g. vit_base"),
        ("hrnet_w18_small_v2", {}, "'hrnet_w18_small_v2' is not a plain ViT"),
        ("swin_tiny_patch4_window7_224", {}, "'swin_tiny_patch4_window7_224' is not a plain ViT"),
        ("beit_base_patch16_224", {}, "'beit_base_patch16_224' is not a plain ViT"),
        (
            {"name": "test_vit", "options": {"patch_drop_rate": 0.5}},
            {},
            "backbone.options.patch_drop_rate: decoder task_prompts needs all patches",
        ),
        ("test_vit", {"channel_windows": 17}, "channel_windows: Input should be less than or"),
        ("test_vit", {"width": 0}, "width: Input should be greater than or equal to 1"),
    ],
)
def test_wrong_combinations_are_errors(
    backbone: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, ModelError), match=message):
        densemtl.create_model(
            {"name": "task_prompts", **options}, backbone=backbone, tasks=["depth"]
        )
