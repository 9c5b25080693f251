"""Properties of all decoders, on backbones with and without stages."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.errors import ModelError
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.tasks.base import Task
from densemtl.types import Predictions
from tests.helpers.decoder_cases import (
    ARCHITECTURES,
    BACKBONE_OPTIONS,
    BACKBONES,
    SMALL_OPTIONS,
    STAGED_ARCHITECTURES,
    UNSTAGED_BACKBONES,
    is_supported,
)
from tests.helpers.exact import assert_same

NAMES = ["semseg", "depth", "normals"]
CASES = [
    (architecture, backbone)
    for architecture in ARCHITECTURES
    for backbone in BACKBONES
    if is_supported(architecture, backbone)
]

Build = Callable[..., MultiTaskModel]


@pytest.fixture(scope="module")
def build(make_task: Callable[..., Task]) -> Build:
    def make(
        architecture: str, backbone: str, names: list[str] = NAMES, **options: Any
    ) -> MultiTaskModel:
        torch.manual_seed(0)
        tasks = [make_task(name) for name in names]
        decoder = registry.create(
            "decoders",
            architecture,
            lambda: Backbone(
                backbone,
                pretrained=False,
                img_size=(64, 64),
                options=BACKBONE_OPTIONS.get(backbone, {}),
            ),
            lambda spec, channels: registry.create("heads", "linear", spec, channels, options={}),
            tasks,
            options=SMALL_OPTIONS.get(architecture, {}) | options,
        )
        return MultiTaskModel(decoder)

    return make


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return (decoder, backbone)."""
    return request.param


@pytest.fixture(scope="module")
def model(build: Build, case: tuple[str, str]) -> MultiTaskModel:
    """Return a model that is built once for all tests of a case; no test changes its weights."""
    return build(*case)


def image(batch: int, size: tuple[int, int] = (32, 64)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, *size), generator=generator, dtype=torch.uint8)


def predict(model: MultiTaskModel, x: torch.Tensor) -> Predictions:
    with torch.no_grad():
        return model.eval()(x)


def test_predicts_all_tasks_and_every_parameter_gets_a_gradient(model: MultiTaskModel) -> None:
    trained, size = deepcopy(model).train(), (29, 51)
    predictions = trained(image(2, size))
    assert {t: tuple(each.shape) for t, each in predictions.logits.items()} == {
        "semseg": (2, 3, *size),
        "depth": (2, 1, *size),
        "normals": (2, 3, *size),
    }
    sum(output.square().mean() for output in predictions.list_outputs()).backward()
    missing = [name for name, each in trained.named_parameters() if each.grad is None]
    assert missing == []


def test_every_parameter_is_in_one_group(model: MultiTaskModel) -> None:
    grouped = [id(each) for group in model.parameter_groups().values() for each in group]
    assert sorted(grouped) == sorted(id(each) for each in model.parameters())
    assert set(model.parameter_groups()) <= {"shared", "fusion", *NAMES}


def test_images_of_a_batch_are_independent(model: MultiTaskModel) -> None:
    exact, x = deepcopy(model).double(), image(3)
    whole = predict(exact, x).logits
    for row in range(3):
        alone = predict(exact, x[row : row + 1]).logits
        for task in NAMES:
            assert_same(alone[task][0], whole[task][row])


def test_state_dict_restores_predictions_and_predictions_are_deterministic(
    build: Build, case: tuple[str, str], model: MultiTaskModel
) -> None:
    other = build(*case)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(model.state_dict())
    first, second, restored = (predict(each, image(1)) for each in (model, model, other))
    for task in NAMES:
        assert torch.equal(first.logits[task], second.logits[task])
        assert torch.equal(first.logits[task], restored.logits[task])


@pytest.mark.parametrize("names", [["depth"], ["normals", "depth"]])
def test_any_number_of_tasks_in_any_order(
    build: Build, case: tuple[str, str], names: list[str]
) -> None:
    assert list(predict(build(*case, names), image(1)).logits) == names


def test_sharing_weights_are_finite_matrices_without_gradients(model: MultiTaskModel) -> None:
    with torch.no_grad():
        locations = model.eval().sharing_weights(image(2, (61, 83)))
    for sharing in locations.values():
        assert sharing.weights.shape == (len(sharing.tasks), len(sharing.sources))
        assert sharing.weights.isfinite().all()
        assert not sharing.weights.requires_grad


@pytest.mark.parametrize("architecture", sorted(STAGED_ARCHITECTURES))
@pytest.mark.parametrize("backbone", sorted(UNSTAGED_BACKBONES))
def test_unstaged_backbone_raises_model_error(
    build: Build, architecture: str, backbone: str
) -> None:
    with pytest.raises(ModelError, match="cannot be run stage by stage"):
        build(architecture, backbone)
