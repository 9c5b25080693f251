"""Dynamic filters, compared with a loop over pixels, and their use in adapters of tasks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from densemtl.adapters.dynamic_filter import DynamicFilter
from densemtl.adapters.options import AdapterOptions
from densemtl.adapters.task_streams import StreamLinear
from densemtl.decoders.task_adapters import TaskAdapters
from densemtl.errors import ConfigError, ModelError
from densemtl.heads.linear import LinearHead
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.models.trainable_parameters import count_trainable
from densemtl.tasks.base import Task
from tests.helpers.adapter_cases import SWIN, build_backbone, randomize_adapters
from tests.helpers.exact import assert_same

NAMES = ["depth", "normals"]


def make_filter(channels: int, window: tuple[int, int] | None = None) -> DynamicFilter:
    torch.manual_seed(0)
    made = DynamicFilter(channels, window)
    with torch.no_grad():
        made.factor.normal_()
        made.shift.normal_()
    return made


def filter_pixels(made: DynamicFilter, maps: Tensor) -> Tensor:
    """Filter maps (B, H, W, R) pixel by pixel."""
    batch, height, width, channels = maps.shape
    output = torch.zeros_like(maps)
    for image in range(batch):
        mean = maps[image].mean((0, 1))
        raw = (made.generate.weight @ mean + made.generate.bias).view(channels, 9)
        for channel in range(channels):
            values = raw[channel] - raw[channel].sum() / 9
            values = values / (values.square().sum() / 9 + 1e-6).sqrt()
            kernel = (values * made.factor[channel] + made.shift[channel]).view(3, 3)
            for row in range(height):
                for column in range(width):
                    for i in range(max(row - 1, 0), min(row + 2, height)):
                        for j in range(max(column - 1, 0), min(column + 2, width)):
                            weight = kernel[i - row + 1, j - column + 1]
                            output[image, row, column, channel] += (
                                weight * maps[image, i, j, channel]
                            )
    return output


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
def test_maps_and_windows_are_filtered_pixel_by_pixel() -> None:
    maps = torch.randn(2, 3, 4, 2)
    expected = filter_pixels(make_filter(2), maps)
    assert_same(make_filter(2)(maps), expected)
    assert_same(make_filter(2, (3, 4))(maps.flatten(1, 2)), expected.flatten(1, 2))


@pytest.mark.parametrize("rank", [4, 16])
def test_number_of_parameters_is_the_published_one(rank: int) -> None:
    """The 12 filters of rank 16 are 32,832 of the published 3,557,502 trained parameters."""
    count = sum(each.numel() for each in DynamicFilter(rank).parameters())
    assert count == 9 * rank**2 + 27 * rank
    assert 12 * (9 * 16**2 + 27 * 16) == 3_557_502 - 3_532_350 + 480 * 16


def build(tasks: list[Task], backbone: str = SWIN, **options: object) -> TaskAdapters:
    shared = AdapterOptions(rank=2)
    make = lambda: build_backbone(backbone, adapters=shared, img_size=(64, 96))  # noqa: E731
    return TaskAdapters(make, LinearHead, tasks, rank=2, **options)


def test_filters_start_as_the_identity_and_are_trained(make_task: Callable[..., Task]) -> None:
    tasks, x = [make_task(name) for name in NAMES], torch.randn(2, 3, 64, 96)
    filtered = randomize_adapters(build(tasks, filter="dynamic")).eval()
    plain = build(tasks).eval()
    plain.load_state_dict(filtered.state_dict(), strict=False)
    before = filtered(x).logits
    for task, logits in plain(x).logits.items():
        torch.testing.assert_close(before[task], logits)
    before["depth"].sum().backward()
    layers = [module for module in filtered.modules() if isinstance(module, StreamLinear)]
    assert len(layers) == 12
    for layer in layers:
        assert layer.filter_low.factor.grad.abs().max() > 0
        with torch.no_grad():
            layer.filter_low.factor.add_(0.5)
    after = filtered(x).logits
    assert all(not torch.allclose(after[task], before[task]) for task in NAMES)
    counts = count_trainable(MultiTaskModel(filtered))
    own = 2 * 2 * 12 * (24 + 48 + 96 + 192)
    assert counts["task_adapters"] == own + 12 * (9 * 4 + 27 * 2)
    assert counts["backbone"] == 0


def test_filters_without_windows_or_low_rank_are_errors(make_task: Callable[..., Task]) -> None:
    tasks = [make_task("depth")]
    with pytest.raises(ModelError, match=r"decoder.filter: dynamic filters need the windows"):
        build(tasks, "test_vit", filter="dynamic")
    with pytest.raises(ConfigError, match=r"decoder.filter: kind dora has no filters"):
        build(tasks, filter="dynamic", kind="dora")
