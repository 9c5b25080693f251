"""Whole models: any image size in, logits of that size out; published parameter counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.decoders.base import SharedBackboneDecoder
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.decoders.single_task import SingleTask
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.tasks.base import Task
from densemtl.tasks.classification import Classification
from densemtl.tasks.depth import Depth
from densemtl.types import FeatureInfo, ImagePlacement, Predictions
from tests.helpers.exact import assert_same

BACKBONES = (
    "test_resnet",
    "test_convnext",
    "test_vit",
    "test_efficientnet",
    "test_mambaout",
    "test_byobnet",
    "hrnet_w18_small",
    "pvt_v2_b0",
)
SIZE = (65, 83)


def classes(*counts: int) -> list[Task]:
    return [
        Classification(f"task{i}", class_names=[str(c) for c in range(count)])
        for i, count in enumerate(counts)
    ]


TASKS = [*classes(4), Depth("depth")]


def make(
    backbone: str, head: str, tasks: Sequence[Task], output_stride: int = 32
) -> MultiTaskModel:
    torch.manual_seed(0)
    method = SingleTask if len(tasks) == 1 else HardSharing

    def make_backbone() -> Backbone:
        return Backbone(backbone, pretrained=False, output_stride=output_stride)  # type: ignore[arg-type]

    def make_head(features: FeatureInfo, channels: int) -> nn.Module:
        built: nn.Module = registry.create("heads", head, features, channels, options={})
        return built

    return MultiTaskModel(method(make_backbone, make_head, tasks))


def picture(batch: int, size: tuple[int, int] = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("backbone", "head", "output_stride", "counts", "published"),
    [
        ("hrnet_w18_small_v2", "hrnetv2", 32, (40,), 3_945_270),
        ("hrnet_w18_small_v2", "hrnetv2", 32, (40, 1), 4_019_251),
        ("hrnet_w18_small_v2", "hrnetv2", 32, (21, 7, 1, 3, 1), 4_238_213),
        ("resnet18", "deeplabv3", 8, (21,), 15_904_085),
        ("resnet18", "deeplabv3", 8, (21, 7, 1, 3, 1), 34_795_873),
        ("resnet50", "deeplabv3", 8, (40,), 39_643_752),
        ("resnet50", "deeplabv3", 8, (40, 1), 55_769_449),
    ],
)
def test_published_parameter_counts(
    backbone: str, head: str, output_stride: int, counts: tuple[int, ...], published: int
) -> None:
    with torch.device("meta"):
        model = make(backbone, head, classes(*counts), output_stride)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", ["fpn", "hrnetv2", "linear", "deeplabv3"])
def test_odd_sizes_and_a_gradient_for_every_parameter(backbone: str, head: str) -> None:
    model = make(backbone, head, TASKS).train()
    final = model(picture(2)).logits
    assert {task: each.shape for task, each in final.items()} == {
        "task0": (2, 4, *SIZE),
        "depth": (2, 1, *SIZE),
    }
    torch.stack([each.square().mean() for each in final.values()]).sum().backward()
    missing = [key for key, value in model.named_parameters() if value.grad is None]
    if (backbone, head) == ("hrnet_w18_small", "deeplabv3"):
        # read alone, the coarsest branch leaves the last exchange into the others unused
        missing = [key for key in missing if ".stage4." not in key]
    assert not missing


@pytest.mark.parametrize("size", [SIZE, (64, 96)])
def test_logits_left_at_feature_resolution(size: tuple[int, int]) -> None:
    """Brought back by the steps that they come with, they are those of full size."""
    model = make("test_resnet", "fpn", TASKS).eval()
    with torch.no_grad():
        full, coarse = model(picture(2, size)), model(picture(2, size), full_size=False)
    assert coarse.padded_size == (96, 96) if size == SIZE else size
    assert full.padded_size is None
    for task, logits in coarse.logits.items():
        assert logits.shape[-1] == coarse.padded_size[1] // 4
        whole = LazyLogits.from_placement(
            logits, ImagePlacement(size, (0, 0, *size)), coarse.padded_size
        ).upsample()
        assert torch.equal(whole, full.logits[task])


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_dilated_batch_of_one_trains(backbone: str, output_stride: int) -> None:
    model = make(backbone, "deeplabv3", TASKS, output_stride).train()
    assert model(picture(1)).logits["depth"].shape == (1, 1, *SIZE)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_mambaout"])
def test_images_of_a_batch_are_independent_in_evaluation(backbone: str) -> None:
    model = make(backbone, "fpn", TASKS).eval().double()
    images = picture(3)
    with torch.no_grad():
        together = model(images).logits["task0"]
        alone = torch.cat([model(image[None]).logits["task0"] for image in images])
    assert_same(together, alone)


def test_a_padded_image_is_the_corner_of_one_with_the_mean_colour_beside_it() -> None:
    model = make("test_resnet", "fpn", TASKS).eval().double()
    small = picture(1, (50, 70)).float()
    large = (255 * torch.tensor(model.decoder.backbone.mean)).view(1, 3, 1, 1).repeat(1, 1, 64, 96)
    large[..., :50, :70] = small
    with torch.no_grad():
        expected = model(large).logits["depth"][..., :50, :70]
        assert_same(model(small).logits["depth"], expected)


def test_the_backbone_sees_normalised_colours() -> None:
    model = make("test_vit", "linear", TASKS)  # mean and deviation .5: 0..255 becomes -1..1
    seen: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[..., 16:] = 255
    model(image)
    assert seen[0].dtype == torch.float32
    torch.testing.assert_close(seen[0][..., :16], torch.full((1, 3, 32, 16), -1.0))
    torch.testing.assert_close(seen[0][..., 16:], torch.full((1, 3, 32, 16), 1.0))


def test_bytes_and_floats_give_the_same() -> None:
    model = make("test_resnet", "fpn", TASKS).eval()
    with torch.no_grad():
        first, second = model(picture(1)).logits, model(picture(1).float()).logits
    assert torch.equal(first["depth"], second["depth"])


def test_state_dicts_go_round_and_hold_no_constants() -> None:
    first, second = make("test_convnext", "fpn", TASKS), make("test_convnext", "fpn", TASKS)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        a, b = first.eval()(picture(1)).logits, second.eval()(picture(1)).logits
    assert torch.equal(a["task0"], b["task0"])
    assert not {"mean", "std"} & set(first.state_dict())


def test_channels_last_and_bfloat16() -> None:
    model = make("test_resnet", "fpn", TASKS).eval()
    with torch.no_grad():
        plain = model(picture(2)).logits["depth"]
        exact = deepcopy(model).double()
        expected = exact(picture(2)).logits["depth"]
        exact, model = (each.to(memory_format=torch.channels_last) for each in (exact, model))
        image = picture(2).contiguous(memory_format=torch.channels_last)
        assert_same(exact(image).logits["depth"], expected)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = model(image).logits["depth"]
    assert coarse.shape == plain.shape
    assert (coarse.float() - plain).abs().mean() < 0.1 * plain.abs().mean() + 0.05


@pytest.mark.parametrize("tasks", [TASKS, classes(3)])
def test_every_parameter_lies_in_one_group(tasks: list[Task]) -> None:
    model = make("test_resnet", "fpn", tasks)
    groups = model.parameter_groups()
    assert set(groups) == {"shared", *(task.name for task in tasks)}
    grouped = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


class Auxiliary(SharedBackboneDecoder):
    """Predicts the horizontal coordinate of a feature cell, at stride 8."""

    def decode_features(self, features: list[Tensor]) -> Predictions:
        batch, _, height, width = features[1].shape
        ramp = torch.arange(width, dtype=torch.float32).expand(batch, 1, height, width)
        return Predictions({"depth": ramp}, [{"depth": ramp}], {"prior": ramp.sum()})

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        return {"shared": list(self.parameters())}


def auxiliary_model() -> MultiTaskModel:
    return MultiTaskModel(
        Auxiliary(lambda: Backbone("test_resnet", pretrained=False), [Depth("depth")])
    )


def test_auxiliary_logits_keep_their_resolution() -> None:
    predictions = auxiliary_model()(picture(1, (64, 96)))
    assert predictions.aux_logits[0]["depth"].shape == (1, 1, 8, 12)
    assert predictions.logits["depth"].shape == (1, 1, 64, 96)
    assert "prior" in predictions.aux_losses


def test_padding_is_cut_off_auxiliary_logits_exactly() -> None:
    predictions = auxiliary_model()(picture(1, (50, 70)))
    ramp = torch.arange(12.0).view(1, 1, 1, 12)
    row = F.interpolate(ramp, size=(1, 96), mode="bilinear", align_corners=False)[..., :70]
    for logits in (predictions.aux_logits[0]["depth"], predictions.logits["depth"]):
        torch.testing.assert_close(logits, row.expand(1, 1, 50, 70))
