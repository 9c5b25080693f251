"""What holds for every architecture, on backbones that are cut into stages and on others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from densemtl import components
from densemtl.errors import ModelError
from densemtl.models.backbone import Backbone
from densemtl.models.model import DenseModel
from densemtl.tasks.base import Task
from densemtl.types import Predictions

ARCHITECTURES = sorted({*components.names("decoders")} - {"single_task"})
NEED_STAGES = {"cross_stitch", "mtan", "nddr_cnn", "sluice"}
BACKBONES = ["test_resnet", "test_convnext", "test_vit", "hrnet_w18_small_v2"]
UNCUT = {"hrnet_w18_small_v2"}
NAMES = ["semseg", "depth", "normals"]
CASES = [
    (architecture, backbone)
    for architecture in ARCHITECTURES
    for backbone in BACKBONES
    if architecture not in NEED_STAGES or backbone not in UNCUT
]

Build = Callable[..., DenseModel]


@pytest.fixture
def build(make_task: Callable[..., Task]) -> Build:
    def make(
        architecture: str, backbone: str, names: list[str] = NAMES, **options: Any
    ) -> DenseModel:
        torch.manual_seed(0)
        tasks = [make_task(name) for name in names]
        decoder = components.make(
            "decoders",
            architecture,
            lambda: Backbone(backbone, pretrained=False, img_size=(64, 64)),
            lambda spec, channels: components.make("heads", "linear", spec, channels, options={}),
            tasks,
            options=options,
        )
        return DenseModel(decoder)

    return make


def image(batch: int, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, *size), generator=generator, dtype=torch.uint8)


def predict(model: DenseModel, x: torch.Tensor) -> Predictions:
    with torch.no_grad():
        return model.eval()(x)


@pytest.mark.parametrize(("architecture", "backbone"), CASES)
def test_trains_every_parameter_and_predicts_every_task(
    build: Build, architecture: str, backbone: str
) -> None:
    model = build(architecture, backbone)
    size = (61, 83)
    predictions = model(image(2, size))
    assert {t: tuple(each.shape) for t, each in predictions.final.items()} == {
        "semseg": (2, 3, *size),
        "depth": (2, 1, *size),
        "normals": (2, 3, *size),
    }
    outputs = [*predictions.final.values(), *(o for aux in predictions.aux for o in aux.values())]
    sum(output.square().mean() for output in outputs).backward()
    missing = [name for name, each in model.named_parameters() if each.grad is None]
    assert missing == []


@pytest.mark.parametrize(("architecture", "backbone"), CASES)
def test_every_parameter_is_in_one_group(build: Build, architecture: str, backbone: str) -> None:
    model = build(architecture, backbone)
    grouped = [id(each) for group in model.parameter_groups().values() for each in group]
    assert sorted(grouped) == sorted(id(each) for each in model.parameters())
    assert set(model.parameter_groups()) <= {"shared", "fusion", *NAMES}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batch_mates_do_not_matter(build: Build, architecture: str) -> None:
    model, x = build(architecture, "test_resnet"), image(3)
    whole = predict(model, x).final
    for row in range(3):
        alone = predict(model, x[row : row + 1]).final
        for task in NAMES:
            torch.testing.assert_close(alone[task][0], whole[task][row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_carry_everything(build: Build, architecture: str) -> None:
    one = build(architecture, "test_resnet")
    other = build(architecture, "test_resnet")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(one.state_dict())
    a, b = predict(one, image(1)), predict(other, image(1))
    assert all(torch.equal(a.final[task], b.final[task]) for task in NAMES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("names", [["depth"], ["normals", "depth"]])
def test_any_number_of_tasks_in_any_order(
    build: Build, architecture: str, names: list[str]
) -> None:
    assert list(predict(build(architecture, "test_resnet", names), image(1)).final) == names


@pytest.mark.parametrize("architecture", sorted(NEED_STAGES))
@pytest.mark.parametrize("backbone", sorted(UNCUT))
def test_a_backbone_that_cannot_be_cut_is_told(
    build: Build, architecture: str, backbone: str
) -> None:
    with pytest.raises(ModelError, match="cannot be run stage by stage"):
        build(architecture, backbone)
