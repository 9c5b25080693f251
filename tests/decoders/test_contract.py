"""What holds for every architecture, on backbones that are cut into stages and on others."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from exact import assert_same

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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """(architecture, backbone)."""
    return request.param


@pytest.fixture(scope="module")
def model(build: Build, case: tuple[str, str]) -> DenseModel:
    """Built once for all tests of a case; none of them changes its weights."""
    return build(*case)


def image(batch: int, size: tuple[int, int] = (32, 64)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, *size), generator=generator, dtype=torch.uint8)


def predict(model: DenseModel, x: torch.Tensor) -> Predictions:
    with torch.no_grad():
        return model.eval()(x)


def test_trains_every_parameter_and_predicts_every_task(model: DenseModel) -> None:
    trained, size = deepcopy(model).train(), (29, 51)
    predictions = trained(image(2, size))
    assert {t: tuple(each.shape) for t, each in predictions.final.items()} == {
        "semseg": (2, 3, *size),
        "depth": (2, 1, *size),
        "normals": (2, 3, *size),
    }
    outputs = [*predictions.final.values(), *(o for aux in predictions.aux for o in aux.values())]
    sum(output.square().mean() for output in outputs).backward()
    missing = [name for name, each in trained.named_parameters() if each.grad is None]
    assert missing == []


def test_every_parameter_is_in_one_group(model: DenseModel) -> None:
    grouped = [id(each) for group in model.parameter_groups().values() for each in group]
    assert sorted(grouped) == sorted(id(each) for each in model.parameters())
    assert set(model.parameter_groups()) <= {"shared", "fusion", *NAMES}


def test_batch_mates_do_not_matter(model: DenseModel) -> None:
    exact, x = deepcopy(model).double(), image(3)
    whole = predict(exact, x).final
    for row in range(3):
        alone = predict(exact, x[row : row + 1]).final
        for task in NAMES:
            assert_same(alone[task][0], whole[task][row])


def test_weights_carry_everything_and_runs_repeat(
    build: Build, case: tuple[str, str], model: DenseModel
) -> None:
    other = build(*case)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(model.state_dict())
    once, again, carried = (predict(each, image(1)) for each in (model, model, other))
    for task in NAMES:
        assert torch.equal(once.final[task], again.final[task])
        assert torch.equal(once.final[task], carried.final[task])


@pytest.mark.parametrize("names", [["depth"], ["normals", "depth"]])
def test_any_number_of_tasks_in_any_order(
    build: Build, case: tuple[str, str], names: list[str]
) -> None:
    assert list(predict(build(*case, names), image(1)).final) == names


def test_sharing_is_told_of_tasks_in_numbers(model: DenseModel) -> None:
    with torch.no_grad():
        places = model.eval().sharing(image(2, (61, 83)))
    for sharing in places.values():
        assert sharing.weights.shape == (len(sharing.takers), len(sharing.sources))
        assert sharing.weights.isfinite().all()
        assert not sharing.weights.requires_grad


@pytest.mark.parametrize("architecture", sorted(NEED_STAGES))
@pytest.mark.parametrize("backbone", sorted(UNCUT))
def test_a_backbone_that_cannot_be_cut_is_told(
    build: Build, architecture: str, backbone: str
) -> None:
    with pytest.raises(ModelError, match="cannot be run stage by stage"):
        build(architecture, backbone)
