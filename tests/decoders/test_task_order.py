"""Predictions do not depend on the order of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.decoders.base import Decoder
from densemtl.heads.linear import LinearHead
from densemtl.tasks.base import Task
from tests.helpers.decoder_cases import (
    ARCHITECTURES,
    BACKBONE_OPTIONS,
    BACKBONES,
    SMALL_OPTIONS,
    get_backbone,
    is_supported,
)
from tests.helpers.exact import SINGLE_TOLERANCE, TOLERANCE, assert_same

NAMES = ["semseg", "depth", "normals"]
GATED = {"cgc", "ml_mmoe", "mmoe", "ple"}
ORDER = [2, 0, 1]
"""New order of tasks, as indices into the old order."""

OPTIONS: dict[str, dict[str, Any]] = {
    "mti_net": {"softmax": "paper"},
    "jtrl": {"order": NAMES},
    "branched": {
        "tree": [[NAMES], [NAMES], [["depth", "semseg"], ["normals"]], [[n] for n in NAMES]]
    },
    "asymmetric_sharing": {"sources": {"depth": ["normals", "semseg"]}},
}
"""Options of decoders whose default depends on the order of tasks.

JTRL visits tasks in their order. The softmax of the reference code is computed over neighboring
channels of any tasks, without `sources` the last task is the reader, and the first task of a group
names the copy of a stage.
"""


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_predictions_do_not_depend_on_task_order(
    make_task: Callable[..., Task], architecture: str, backbone: str
) -> None:
    if not is_supported(architecture, backbone):
        pytest.skip(f"{architecture} does not support {backbone}")
    old = build(make_task, architecture, NAMES, backbone)
    new = build(make_task, architecture, [NAMES[index] for index in ORDER], backbone)
    state = old.state_dict()
    new.load_state_dict({key: permute_parameter(architecture, key, state) for key in state})
    x = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        expected, actual = old.double().eval()(x).logits, new.double().eval()(x).logits
    assert list(actual) == [NAMES[index] for index in ORDER]
    for task in NAMES:
        tolerance = SINGLE_TOLERANCE if architecture in GATED else TOLERANCE
        assert_same(actual[task], expected[task], tolerance)
    assert (expected["depth"].std() > 1e-4).item()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_seed_gives_same_weights(make_task: Callable[..., Task], architecture: str) -> None:
    x = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, other = (build(make_task, architecture, NAMES).eval()(x).logits for _ in range(2))
    assert all(torch.equal(one[task], other[task]) for task in NAMES)


def build(
    make_task: Callable[..., Task],
    architecture: str,
    names: list[str],
    backbone: str = "",
) -> Decoder:
    backbone = backbone or get_backbone(architecture)
    torch.manual_seed(0)
    decoder: Decoder = registry.create(
        "decoders",
        architecture,
        lambda: Backbone(backbone, pretrained=False, options=BACKBONE_OPTIONS.get(backbone, {})),
        LinearHead,
        [make_task(name) for name in names],
        options=SMALL_OPTIONS.get(architecture, {}) | OPTIONS.get(architecture, {}),
    )
    generator = torch.Generator().manual_seed(2)
    for parameter in decoder.parameters():
        with torch.no_grad():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return decoder


def permute_parameter(architecture: str, key: str, state: dict[str, Tensor]) -> Tensor:
    """Return a parameter of the network with the new order from the state of the old one."""
    return PERMUTATIONS.get(architecture, keep_parameter)(key, state)


def keep_parameter(key: str, state: dict[str, Tensor]) -> Tensor:
    """Return the parameter of the same name, for modules that are named after their task."""
    return state[key]


def permute_blocks(tensor: Tensor, dim: int) -> Tensor:
    """Permute equal blocks, one per task, along a dimension."""
    parts = tensor.chunk(len(ORDER), dim)
    return torch.cat([parts[index] for index in ORDER], dim)


def cross_stitch(key: str, state: dict[str, Tensor]) -> Tensor:
    return state[key][ORDER][:, ORDER] if key.startswith("units.") else state[key]


def nddr_cnn(key: str, state: dict[str, Tensor]) -> Tensor:
    """Permute `layers.LEVEL.TASK.LAYER.*`."""
    if not key.startswith("layers."):
        return state[key]
    _, level, task, layer, what = key.split(".")
    tensor = state[f"layers.{level}.{ORDER[int(task)]}.{layer}.{what}"]
    return permute_blocks(tensor, 1) if tensor.ndim == 4 else tensor


def mti_net(key: str, state: dict[str, Tensor]) -> Tensor:
    """Permute the feature propagation, which reads and weighs the channels of all tasks."""
    tensor = state[key]
    if not key.startswith("feature_propagation."):
        return tensor
    reads = ("mask.0.body.0.0.", "mask.0.skip.0.", "reduce.body.0.0.", "reduce.skip.0.")
    if any(part in key for part in reads):
        return permute_blocks(tensor, 1)
    return permute_blocks(tensor, 0) if ".mask.2." in key else tensor


def sluice(key: str, state: dict[str, Tensor]) -> Tensor:
    """Permute `alphas.STAGE`, `betas` and `projections.TASK.STAGE.weight`."""
    tensor = state[key]
    if key.startswith("alphas."):
        return permute_blocks(permute_blocks(tensor, 0), 1)
    if key == "betas":
        return tensor[ORDER]
    if key.startswith("projections."):
        _, task, stage, what = key.split(".")
        return state[f"projections.{ORDER[int(task)]}.{stage}.{what}"]
    return tensor


def pap_net(key: str, state: dict[str, Tensor]) -> Tensor:
    """Permute the weights of the affinities."""
    if key == "diffusion.mixture":
        return state[key][ORDER][:, ORDER]
    return state[key][ORDER] if key == "diffusion.beta_logits" else state[key]


def invpt(key: str, state: dict[str, Tensor]) -> Tensor:
    """Permute the joint normalization of the channels of all tasks."""
    return permute_blocks(state[key], 0) if key.startswith("sum.norms.") else state[key]


def atrc(key: str, state: dict[str, Tensor]) -> Tensor:
    """Permute the reduction of what a task reads from all tasks."""
    return permute_blocks(state[key], 1) if key.endswith("reduce.0.weight") else state[key]


def mtmamba(key: str, state: dict[str, Tensor]) -> Tensor:
    """Permute the normalization and the convolution of the maps of all tasks."""
    if ".exchange.shared.0." in key:
        return permute_blocks(state[key], 0)
    return permute_blocks(state[key], 1) if key.endswith("shared.1.weight") else state[key]


PERMUTATIONS: dict[str, Callable[[str, dict[str, Tensor]], Tensor]] = {
    "atrc": atrc,
    "cross_stitch": cross_stitch,
    "mtmamba": mtmamba,
    "nddr_cnn": nddr_cnn,
    "pap_net": pap_net,
    "invpt": invpt,
    "mti_net": mti_net,
    "sluice": sluice,
}
