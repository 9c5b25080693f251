"""Complete models: image sizes, normalization, padding, and published parameter counts."""

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


def make_tasks(*counts: int) -> list[Task]:
    return [
        Classification(f"task{i}", class_names=[str(c) for c in range(count)])
        for i, count in enumerate(counts)
    ]


TASKS = [*make_tasks(4), Depth("depth")]


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


def make_image(batch: int, size: tuple[int, int] = SIZE) -> Tensor:
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
        model = make(backbone, head, make_tasks(*counts), output_stride)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", ["fpn", "hrnetv2", "linear", "deeplabv3"])
def test_odd_sizes_are_supported_and_every_parameter_gets_a_gradient(
    backbone: str, head: str
) -> None:
    model = make(backbone, head, TASKS).train()
    final = model(make_image(2)).logits
    assert {task: each.shape for task, each in final.items()} == {
        "task0": (2, 4, *SIZE),
        "depth": (2, 1, *SIZE),
    }
    torch.stack([each.square().mean() for each in final.values()]).sum().backward()
    missing = [key for key, value in model.named_parameters() if value.grad is None]
    if (backbone, head) == ("hrnet_w18_small", "deeplabv3"):
        # The head reads only the coarsest branch, so the last exchange into the others is unused.
        missing = [key for key in missing if ".stage4." not in key]
    assert not missing


@pytest.mark.parametrize("size", [SIZE, (64, 96)])
def test_low_resolution_logits_upsample_to_full_size_logits(size: tuple[int, int]) -> None:
    model = make("test_resnet", "fpn", TASKS).eval()
    with torch.no_grad():
        full, low_res = model(make_image(2, size)), model(make_image(2, size), full_size=False)
    assert low_res.padded_size == ((96, 96) if size == SIZE else size)
    assert full.padded_size is None
    for task, logits in low_res.logits.items():
        assert logits.shape[-1] == low_res.padded_size[1] // 4
        upsampled = LazyLogits.from_placement(
            logits, ImagePlacement(size, (0, 0, *size)), low_res.padded_size
        ).upsample()
        assert torch.equal(upsampled, full.logits[task])


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_backbone_trains_with_batch_size_one(backbone: str, output_stride: int) -> None:
    model = make(backbone, "deeplabv3", TASKS, output_stride).train()
    assert model(make_image(1)).logits["depth"].shape == (1, 1, *SIZE)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_mambaout"])
def test_images_of_a_batch_are_independent_in_evaluation(backbone: str) -> None:
    model = make(backbone, "fpn", TASKS).eval().double()
    images = make_image(3)
    with torch.no_grad():
        together = model(images).logits["task0"]
        alone = torch.cat([model(image[None]).logits["task0"] for image in images])
    assert_same(together, alone)


def test_padding_equals_a_border_of_the_mean_color() -> None:
    model = make("test_resnet", "fpn", TASKS).eval().double()
    small = make_image(1, (50, 70)).float()
    large = (255 * torch.tensor(model.decoder.backbone.mean)).view(1, 3, 1, 1).repeat(1, 1, 64, 96)
    large[..., :50, :70] = small
    with torch.no_grad():
        expected = model(large).logits["depth"][..., :50, :70]
        assert_same(model(small).logits["depth"], expected)


def test_backbone_gets_normalized_images() -> None:
    model = make("test_vit", "linear", TASKS)  # mean and std are 0.5: 0..255 is mapped to -1..1
    inputs: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[..., 16:] = 255
    model(image)
    assert inputs[0].dtype == torch.float32
    torch.testing.assert_close(inputs[0][..., :16], torch.full((1, 3, 32, 16), -1.0))
    torch.testing.assert_close(inputs[0][..., 16:], torch.full((1, 3, 32, 16), 1.0))


def test_uint8_and_float_images_give_the_same_predictions() -> None:
    model = make("test_resnet", "fpn", TASKS).eval()
    with torch.no_grad():
        first, second = model(make_image(1)).logits, model(make_image(1).float()).logits
    assert torch.equal(first["depth"], second["depth"])


def test_state_dict_restores_predictions_and_contains_no_constants() -> None:
    first, second = make("test_convnext", "fpn", TASKS), make("test_convnext", "fpn", TASKS)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        a, b = first.eval()(make_image(1)).logits, second.eval()(make_image(1)).logits
    assert torch.equal(a["task0"], b["task0"])
    assert not {"mean", "std"} & set(first.state_dict())


def test_channels_last_and_bfloat16() -> None:
    model = make("test_resnet", "fpn", TASKS).eval()
    with torch.no_grad():
        plain = model(make_image(2)).logits["depth"]
        exact = deepcopy(model).double()
        expected = exact(make_image(2)).logits["depth"]
        exact, model = (each.to(memory_format=torch.channels_last) for each in (exact, model))
        image = make_image(2).contiguous(memory_format=torch.channels_last)
        assert_same(exact(image).logits["depth"], expected)
        with torch.autocast("cpu", torch.bfloat16):
            low_res = model(image).logits["depth"]
    assert low_res.shape == plain.shape
    assert (low_res.float() - plain).abs().mean() < 0.1 * plain.abs().mean() + 0.05


@pytest.mark.parametrize("tasks", [TASKS, make_tasks(3)])
def test_every_parameter_is_in_one_group(tasks: list[Task]) -> None:
    model = make("test_resnet", "fpn", tasks)
    groups = model.parameter_groups()
    assert set(groups) == {"shared", *(task.name for task in tasks)}
    grouped = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


class Auxiliary(SharedBackboneDecoder):
    """Decoder that predicts the horizontal index of a feature pixel, at stride 8."""

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
    predictions = auxiliary_model()(make_image(1, (64, 96)))
    assert predictions.aux_logits[0]["depth"].shape == (1, 1, 8, 12)
    assert predictions.logits["depth"].shape == (1, 1, 64, 96)
    assert "prior" in predictions.aux_losses


def test_padding_is_cropped_from_auxiliary_logits_exactly() -> None:
    predictions = auxiliary_model()(make_image(1, (50, 70)))
    ramp = torch.arange(12.0).view(1, 1, 1, 12)
    row = F.interpolate(ramp, size=(1, 96), mode="bilinear", align_corners=False)[..., :70]
    for logits in (predictions.aux_logits[0]["depth"], predictions.logits["depth"]):
        torch.testing.assert_close(logits, row.expand(1, 1, 50, 70))
