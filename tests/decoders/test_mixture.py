"""Mixture of a ViT and adapter streams: published size, equations in plain torch, special cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from densemtl.backbones.backbone import Backbone
from densemtl.backbones.staged_forward import StageState
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.config.distillation import DistillConfig
from densemtl.decoders.mixture import Mixture
from densemtl.decoders.mixture_streams import StreamRouter
from densemtl.engine.distillation import Distillation, compute_feature_loss
from densemtl.errors import ConfigError, ModelError
from densemtl.heads.linear import LinearHead
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.tasks.base import Task
from densemtl.types import FeatureInfo, Size
from tests.decoders.test_published_parameter_counts import make_tasks
from tests.engine.test_distillation import (
    CPU,
    assert_close_gradients,
    make_image,
    make_teacher,
    step_gradients,
)
from tests.helpers.decoder_cases import batch_norm, conv, randomize_batch_norms
from tests.helpers.exact import assert_same

NAMES = ["semseg", "depth", "normals"]
NYUD, PASCAL = (40, 1, 3, 1), (21, 7, 2, 3, 1)


class FixedBlocks(nn.Module):
    """Backbone with four stages of blocks, all of whose maps are zeros of one shape."""

    name = "fixed"

    def __init__(self, channels: int, blocks: int, size: Size) -> None:
        super().__init__()
        self.feature_info = FeatureInfo((channels,) * 4, (16,) * 4)
        self._blocks, self._shape = blocks, (1, channels, *size)

    def check_stages(self) -> None:
        """Do nothing."""

    @contextmanager
    def dry_run(self) -> Iterator[Tensor]:
        yield torch.empty(1)

    def run_stem(self, image: Tensor) -> StageState:
        return StageState(torch.zeros(self._shape, device=image.device), None, (1, 1), (), {})

    def run_stage_blocks(self, index: int, state: StageState) -> list[StageState]:
        return [state] * self._blocks


@pytest.mark.parametrize(
    ("channels", "blocks", "outputs", "streams", "routers", "heads", "multiply_adds"),
    [
        (768, 3, NYUD, 11_557_479, 4_786_304, 23_639_853, 16.411e9 + 345.392e9),
        (768, 3, PASCAL, 11_557_479, 5_982_880, 29_532_706, 17.892e9 + 438.313e9),
        (1024, 6, NYUD, 39_442_251, 8_478_848, 42_005_549, 48.197e9 + 613.783e9),
    ],
    ids=["nyud-b", "pascal-b", "nyud-l"],
)
def test_size_equals_published_code(
    channels: int,
    blocks: int,
    outputs: tuple[int, ...],
    streams: int,
    routers: int,
    heads: int,
    multiply_adds: float,
) -> None:
    """Parameters and multiply-adds of adapters, routers and heads.

    The published adapters also run on the class token, and the published routers average over
    pixels after their last layer.
    """
    size = (28, 36) if outputs == NYUD else (32, 32)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        backbone = FixedBlocks(channels, blocks, size)
        decoder = Mixture(lambda: backbone, LinearHead, make_tasks("task", outputs)).eval()  # type: ignore[arg-type,return-value]
        decoder(torch.empty(1, 3, 16 * size[0], 16 * size[1]))
    tails = nn.ModuleList([decoder.projections, decoder.outputs, decoder.heads])
    counts = [
        sum(weight.numel() for weight in part.parameters())
        for part in (decoder.streams, decoder.routers, tails)
    ]
    assert counts == [streams, routers, heads]
    num_streams = 3 * (1 + 4 * blocks)
    class_token = num_streams * 2 * channels * channels // 4
    last_layers = 4 * len(outputs) * (size[0] * size[1] - 1) * channels // 2 * 8
    expected = multiply_adds - class_token - last_layers
    assert counter.get_total_flops() / 2 == pytest.approx(expected, rel=2e-5)


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    return [make_task(name) for name in NAMES]


def build(tasks: Sequence[Task], **options: Any) -> Mixture:
    """Return a decoder of a tiny ViT in double precision whose parameters are all random."""
    torch.manual_seed(0)
    decoder = Mixture(lambda: Backbone("test_vit", pretrained=False), LinearHead, tasks, **options)
    with torch.no_grad():
        randomize_batch_norms(decoder)
    for name, parameter in decoder.named_parameters():
        if not name.startswith("backbone"):
            nn.init.normal_(parameter, std=0.3)
    return decoder.double().eval()


def run_blocks(backbone: Backbone, image: Tensor) -> list[Tensor]:
    """Return the maps of the input of the first block and the outputs of all blocks."""
    maps: list[Tensor] = []

    def to_map(tokens: Tensor) -> Tensor:
        count = tokens.shape[1] - (image.shape[2] // 16) * (image.shape[3] // 16)
        grid = tokens[:, count:].transpose(1, 2)
        return grid.unflatten(2, (image.shape[2] // 16, image.shape[3] // 16))

    blocks = backbone.get_submodule("net.model.blocks")
    hooks = [blocks[0].register_forward_pre_hook(lambda _, x: maps.append(to_map(x[0])))]
    for block in blocks:
        hooks.append(block.register_forward_hook(lambda _, x, y: maps.append(to_map(y))))
    backbone(image)
    for hook in hooks:
        hook.remove()
    return maps


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centered = x - x.mean(dim=1, keepdim=True)
    scaled = centered / (centered.square().mean(dim=1, keepdim=True) + norm.eps).sqrt()
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


def adapt(x: Tensor, adapter: nn.Module) -> Tensor:
    return x + adapter.scale * conv(F.gelu(conv(x, adapter.down)), adapter.up)


def test_predictions_equal_the_equations(tasks: list[Task]) -> None:
    decoder, image = build(tasks, streams=2, width=32), torch.randn(2, 3, 48, 64).double()
    with torch.no_grad():
        logits = decoder(image).logits
        stem, *outputs = run_blocks(decoder.backbone, image)
        ends = [0, 2, 3, 5]  # six blocks in stages of 1, 2, 1 and 2
        streams = []
        for stream in decoder.streams:
            adapters = [adapter for stage in stream.stages for adapter in stage]
            feature, maps = adapt(stem, stream.stem), []
            for output, adapter in zip(outputs, adapters, strict=True):
                feature = adapt(feature + output, adapter)
                maps.append(feature)
            streams.append(
                [layer_norm(maps[end], norm) for end, norm in zip(ends, stream.norms, strict=True)]
            )
        for task in NAMES:
            joined = []
            for level, end in enumerate(ends):
                router = decoder.routers[task][level]
                hidden = layer_norm(conv(outputs[end], router.pixels[0]), router.pixels[1])
                scores = conv(F.gelu(hidden), router.score).mean(dim=(2, 3))[:, :3]
                weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
                sources = [outputs[end], *(maps[level] for maps in streams)]
                mixed = torch.einsum("bs,sbchw->bchw", weights, torch.stack(sources))
                joined.append(conv(mixed, decoder.projections[task][level]))
            enlarged = F.interpolate(
                torch.cat(joined, dim=1), (12, 16), mode="bilinear", align_corners=False
            )
            last = decoder.outputs[task]
            feature = F.gelu(batch_norm(conv(enlarged, last[0]), last[1]))
            assert_same(logits[task], conv(feature, decoder.heads[task].levels[0]))


def test_without_streams_tasks_read_the_backbone(tasks: list[Task]) -> None:
    decoder, image = build(tasks, streams=0), torch.randn(1, 3, 32, 48).double()
    assert not list(decoder.routers.parameters())
    assert not decoder.sharing_weights(image)
    with torch.no_grad():
        maps = decoder.backbone(image)
        logits = decoder(image).logits
        for task in NAMES:
            pairs = zip(decoder.projections[task], maps, strict=True)
            joined = torch.cat([conv(feature, project) for project, feature in pairs], dim=1)
            enlarged = F.interpolate(joined, (8, 12), mode="bilinear", align_corners=False)
            expected = decoder.heads[task]([decoder.outputs[task](enlarged)])
            assert_same(logits[task], expected)


def test_constant_routers_average_and_adapters_of_scale_0_add(tasks: list[Task]) -> None:
    decoder, image = build(tasks, streams=1), torch.randn(1, 3, 32, 32).double()
    with torch.no_grad():
        for module in decoder.modules():
            if isinstance(module, StreamRouter):
                nn.init.zeros_(module.score.weight)
                nn.init.zeros_(module.score.bias)
        for name, parameter in decoder.named_parameters():
            if name.endswith("scale"):
                nn.init.zeros_(parameter)
        weights = decoder.sharing_weights(image)
        assert list(weights) == [f"level {number}" for number in range(1, 5)]
        for each in weights.values():
            assert each.sources == ("backbone", "stream 1")
            torch.testing.assert_close(each.weights, torch.full((3, 2), 0.5).double())
        recorded: dict[int, Tensor] = {}
        with decoder.recording_streams(lambda _, level, x: recorded.update({level: x})):
            decoder(image)
        sums = torch.stack(run_blocks(decoder.backbone, image)).cumsum(dim=0)
        for level, end in enumerate([1, 3, 4, 6]):
            norm = decoder.streams[0].norms[level]
            assert_same(recorded[level], layer_norm(sums[end], norm))


def test_noise_of_routers_is_drawn_from_the_seeded_generator_in_training_only() -> None:
    torch.manual_seed(0)
    router, feature = StreamRouter(8, 3), torch.randn(2, 8, 4, 4)
    nn.init.normal_(router.score.weight, std=3)
    with torch.no_grad():
        assert torch.equal(router.eval()(feature), router(feature))
        mean = router.pixels(feature).mean((2, 3), True)
        scores, noise = router.score(mean).flatten(1).chunk(2, 1)
        torch.testing.assert_close(router(feature), scores.softmax(1))
        torch.manual_seed(5)
        actual = router.train()(feature)
        torch.manual_seed(5)
        deviation = (1 + noise.exp()).log() + 0.01
        expected = (scores + deviation * torch.randn(2, 3)).softmax(1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("freeze", ["none", "all"])
def test_each_teacher_is_compared_with_its_own_stream(tasks: list[Task], freeze: Any) -> None:
    def make_backbone() -> Backbone:
        return Backbone("test_vit", pretrained=False, freeze=freeze)

    model = MultiTaskModel(Mixture(make_backbone, LinearHead, tasks, streams=2).eval())
    teachers = [make_teacher(), make_teacher("test_convnext", (32, 64))]
    config = DistillConfig(teachers=("test_vit", "test_convnext"))
    distillation, image = Distillation(config, model, teachers), make_image((32, 64))
    decoder, maps = model.decoder, {}
    with distillation.recording() as recorded:
        model(image)
    with decoder.recording_streams(lambda stream, level, x: maps.update({(stream, level): x})):
        model(image)
    losses = distillation.compute_losses(recorded, image, CPU)
    for stream, (teacher, loss) in enumerate(zip(teachers, losses.values(), strict=True)):
        options = {"cosine": 0.9, "smooth_l1": 0.1, "per_image": False}
        terms = [
            compute_feature_loss(
                distillation.projections[stream][level](maps[stream, level]), target, **options
            )
            for level, target in enumerate(teacher(image))
        ]
        torch.testing.assert_close(loss, torch.stack(terms).sum())
    next(iter(losses.values())).backward()  # type: ignore[no-untyped-call]
    streams = decoder.get_submodule("streams")
    assert all(weight.grad is not None for weight in streams[0].parameters())
    assert all(weight.grad is None for weight in streams[1].parameters())


def test_gradients_with_and_without_gradient_methods_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("decoder={name: mixture, streams: 1}", "head={name: linear}")
    torch.manual_seed(3)
    expected, _ = step_gradients(tmp_path / "fixed", *options)
    monkeypatch.setattr(GradientBalancer, "compute_weights", lambda self, *_: self._plain_sum())
    torch.manual_seed(3)
    actual, _ = step_gradients(tmp_path / "pcgrad", *options, "balancing={name: pcgrad}")
    assert_close_gradients(actual, expected)
    assert any("streams" in name for name in expected)
    assert any("routers" in name for name in expected)


def test_wrong_settings_are_errors(tasks: list[Task]) -> None:
    with pytest.raises(ModelError, match="blocks of 'test_resnet' have maps of different sizes"):
        Mixture(lambda: Backbone("test_resnet", pretrained=False), LinearHead, tasks)
    with pytest.raises(ConfigError, match=r"decoder.width: must be a multiple of 4, not 30"):
        build(tasks, width=30)
    model = MultiTaskModel(build(tasks, streams=2).float())
    config = DistillConfig(teachers=("test_vit",))
    with pytest.raises(ConfigError, match=r"distill.teachers: .* 2 streams.*decoder.streams=1"):
        Distillation(config, model, [make_teacher()])
