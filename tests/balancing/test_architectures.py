"""Gradient methods with real models: decoders, bf16, activation checkpointing, frozen stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.errors import ConfigError
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.tasks.base import Task
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.types import Losses
from tests.helpers.balancing_driver import accumulate
from tests.helpers.decoder_cases import get_backbone
from tests.helpers.exact import assert_all_same

NAMES = ["semseg", "depth", "normals"]
ARCHITECTURES = sorted({*registry.list_names("decoders")} - {"single_task"})
WITHOUT_SHARED_FEATURES = {
    *("asymmetric_sharing", "cross_stitch", "nddr_cnn", "sluice", "task_adapters")
}
WITHOUT_SHARED_PARAMETERS = {"asymmetric_sharing"}
OPTIONS: dict[str, dict[str, Any]] = {
    "asymmetric_sharing": {"sources": {"semseg": ["depth"]}},
    "invpt": {"initial_width": 16, "width": 32},
    "mlore": {"width": 16, "experts": 3, "top_k": 2, "min_rank": 2, "task_rank": 2},
    "mtmamba": {"states": 2, "finest_stride": 8},
    "pad_net": {"width": 16},
    "pap_net": {"width": 16, "affinity_width": 8},
    "task_prompts": {"level_width": 8, "width": 16},
}
SCOPES = ["features", "parameters"]


class FirstTaskWeight(GradientBalancer):
    """Gradient method with a settable weight of the first task; the other weights are 1."""

    first = 1.0

    def weights(self, gradients: GradientSummary) -> Tensor:
        return torch.tensor([self.first] + [1.0] * (len(gradients.tasks) - 1))


@pytest.fixture(scope="module")
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    return [make_task(name) for name in NAMES]


@pytest.fixture(scope="module")
def build(tasks: list[Task]) -> Callable[..., MultiTaskModel]:
    def make(
        architecture: str, backbone: str = "", dtype: torch.dtype = torch.float64
    ) -> MultiTaskModel:
        backbone = backbone or get_backbone(architecture)
        torch.manual_seed(0)
        decoder = registry.create(
            "decoders",
            architecture,
            lambda: Backbone(backbone, pretrained=False, img_size=(32, 32)),
            lambda spec, channels: registry.create("heads", "linear", spec, channels, options={}),
            tasks,
            options=OPTIONS.get(architecture, {}),
        )
        return MultiTaskModel(decoder).to(dtype).train()

    return make


@pytest.fixture(scope="module")
def batch(tasks: list[Task]) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    normals = torch.randn(2, 3, 32, 32, generator=generator)
    return image, {
        "semseg": torch.randint(0, 3, (2, 32, 32), generator=generator),
        "depth": torch.rand(2, 1, 32, 32, generator=generator) + 0.5,
        "normals": torch.nn.functional.normalize(normals, dim=1),
    }


@pytest.fixture(scope="module")
def run(tasks: list[Task], batch: tuple[Tensor, dict[str, Tensor]]) -> Callable[..., Any]:
    def forward(model: MultiTaskModel, bf16: bool) -> Losses:
        torch.manual_seed(2)  # of the noise of routers
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            predictions = model(batch[0])
        return compute_task_losses(tasks, predictions, batch[1])

    def step(model: MultiTaskModel, method: GradientBalancer, bf16: bool = False) -> Any:
        model.zero_grad()
        method.validate_model(model)
        return accumulate(method, [lambda: forward(model, bf16)], model)

    step.forward = forward  # type: ignore[attr-defined]
    return step


def gradients(model: MultiTaskModel) -> dict[str, Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert_all_same([found[name] for name in expected], list(expected.values()))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_weights_give_gradients_of_plain_sum(build, tasks, run, architecture, scope) -> None:
    """Weights of 1 give the gradients of the sum of the losses for every parameter.

    Another weight changes shared parameters, but no head.
    """
    model, method = build(architecture), FirstTaskWeight(tasks, scope=scope)
    unsupported = WITHOUT_SHARED_FEATURES if scope == "features" else WITHOUT_SHARED_PARAMETERS
    if architecture in unsupported:
        with pytest.raises(ConfigError, match=r"^balancing.scope: (features|parameters): "):
            run(model, method)
        return
    run(model, method)
    found = gradients(model)
    model.zero_grad()
    losses = run.forward(model, False)
    torch.stack([*losses.tasks.values(), *losses.aux_losses.values()]).sum().backward()
    assert_same_gradients(found, gradients(model))
    method.first = 3.0
    run(model, method)
    changed = {name for name, each in gradients(model).items() if differs(each, found[name])}
    assert changed
    assert not any(name.startswith("decoder.heads.") for name in changed)


def differs(one: Tensor, other: Tensor) -> bool:
    return not torch.allclose(one, other, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("scope", SCOPES)
def test_bf16_norms_are_close_to_float32(build, tasks, run, scope):
    model = build("hard_sharing", "test_convnext", torch.float32)
    method = FirstTaskWeight(tasks, scope=scope)
    exact, reduced = (run(model, method, bf16=bf16).log_values for bf16 in (False, True))
    for name in ("norm/semseg", "norm/depth", "norm/normals"):
        assert float(reduced[name]) == pytest.approx(float(exact[name]), rel=0.1)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_activation_checkpointing_keeps_gradients(build, tasks, run, backbone, scope):
    model, method = build("hard_sharing", backbone), FirstTaskWeight(tasks, scope=scope)
    method.first = 2.0
    plain = run(model, method)
    expected = gradients(model)
    net = model.decoder.backbone.net
    net = getattr(net, "model", net)
    net.set_grad_checkpointing(True)
    saved = run(model, method)
    assert_same_gradients(gradients(model), expected)
    for name, value in plain.log_values.items():
        torch.testing.assert_close(saved.log_values[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scope", SCOPES)
def test_frozen_stem_and_stage(build, tasks, run, scope):
    model = build("hard_sharing")
    frozen = list(model.decoder.backbone.parameters())[:12]
    for parameter in frozen:
        parameter.requires_grad_(False)
    run(model, FirstTaskWeight(tasks, scope=scope))
    assert all(parameter.grad is None for parameter in frozen)
    rest = [each for each in model.parameters() if each.requires_grad]
    assert all(parameter.grad is not None for parameter in rest)
