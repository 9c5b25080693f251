"""PAP-Net: equations, with an explicit map of all pairs of pixels, special cases and size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.backbones.backbone import Backbone
from densemtl.decoders.pap_net import AffinityDiffusion, PAPNet
from densemtl.heads.linear import LinearHead
from densemtl.layers.kernel_attention import kernel_attention
from densemtl.tasks.base import Task
from tests.decoders.test_published_parameter_counts import make_tasks
from tests.helpers.decoder_cases import (
    batch_norm,
    build_backbone,
    conv,
    make_images,
    randomize_batch_norms,
    residual,
)
from tests.helpers.exact import assert_same

pytestmark = pytest.mark.usefixtures("double_precision")

NAMES = ["a", "b", "c"]


def compute_affinity(feature: Tensor) -> Tensor:
    """Return the affinity (B, N, N) of every pair of pixels of a map; rows sum to 1."""
    points = (1 + feature.exp()).log().flatten(2).mT
    points = points / points.square().sum(2, keepdim=True).sqrt()
    products = points @ points.mT
    return products / products.sum(2, keepdim=True)


def diffuse(module: AffinityDiffusion, features: dict[str, Tensor]) -> dict[str, Tensor]:
    diffused = {}
    for row, target in enumerate(module.targets):
        exponentials = module.mixture[row].exp()
        affinity = sum(
            weight / exponentials.sum() * compute_affinity(feature)
            for weight, feature in zip(exponentials, features.values(), strict=True)
        )
        beta = 1 / (1 + (-module.beta_logits[row]).exp())
        start = features[target].flatten(2).mT
        current = start
        for _ in range(module.steps):
            current = beta * affinity @ current + (1 - beta) * start
        diffused[target] = current.mT.reshape(features[target].shape)
    return diffused


def make_features(names: list[str] = NAMES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(2, 8, 6, 10, generator=generator) for name in names}


@torch.no_grad()
@pytest.mark.parametrize("targets", [NAMES, NAMES[:2]])
def test_diffusion_equals_map_of_all_pairs(targets: list[str]) -> None:
    module = AffinityDiffusion(targets, NAMES, steps=3, beta=0.3, learn_beta=True)
    module.mixture.normal_()
    module.beta_logits.normal_()
    features = make_features()
    expected = diffuse(module, features)
    for target, diffused in module(features).items():
        assert_same(diffused, expected[target])


@torch.no_grad()
def test_one_hot_mixture_exchanges_nothing() -> None:
    module = AffinityDiffusion(NAMES, NAMES, steps=2, beta=0.3)
    module.mixture.copy_(1e9 * torch.eye(3))
    features, alone = make_features(), AffinityDiffusion(["b"], ["b"], steps=2, beta=0.3)
    assert_same(module(features)["b"], alone({"b": features["b"]})["b"])


@torch.no_grad()
def test_equal_pixels_are_averaged() -> None:
    """Equal affinities of all pairs: beta of the result is the mean over the pixels."""
    module = AffinityDiffusion(["a"], ["a"], steps=1, beta=0.25)
    same = torch.zeros(1, 4, 3, 5)
    values = torch.randn(1, 4, 15)
    points = F.normalize(F.softplus(same.flatten(2)), dim=1)
    mean = values.mean(2, keepdim=True).expand_as(values)
    assert_same(kernel_attention(points, points, values), mean)
    assert_same(module({"a": same})["a"], same)


def test_diffusion_never_leaves_the_range_of_the_feature() -> None:
    """Affinities are non-negative and their rows sum to 1, so that every step is an average."""
    feature = 30 * torch.randn(1, 4, 5, 7)
    diffused = AffinityDiffusion(["a"], ["a"], steps=50, beta=0.9)({"a": feature})["a"]
    bounds = feature.amin(dim=(2, 3)), feature.amax(dim=(2, 3))
    assert (diffused.amin(dim=(2, 3)) >= bounds[0] - 1e-9).all()
    assert (diffused.amax(dim=(2, 3)) <= bounds[1] + 1e-9).all()


def test_attention_of_zero_keys_is_finite() -> None:
    zeros = torch.zeros(1, 2, 3, requires_grad=True)
    output = kernel_attention(zeros, zeros, torch.ones(1, 1, 3))
    assert torch.equal(output, torch.zeros_like(output))
    output.sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


def test_attention_of_large_half_precision_maps_is_finite() -> None:
    points = F.normalize(torch.rand(1, 64, 40_000), dim=1)
    values = 30 + torch.randn(1, 2, 40_000)
    expected = kernel_attention(points, points, values)
    actual = kernel_attention(points.half(), points.half(), values.half())
    torch.testing.assert_close(actual.double(), expected, rtol=1e-2, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("feature", ["all", "last"])
def test_equations(make_task: Callable[..., Task], feature: str) -> None:
    torch.manual_seed(0)
    tasks = [make_task("semseg"), make_task("depth")]
    extra = [make_task("edge")]
    decoder = randomize_batch_norms(
        PAPNet(build_backbone, LinearHead, tasks, extra, feature=feature, width=16, steps=2)
    )
    decoder.diffusion.mixture.normal_()
    x = make_images()
    levels = decoder.backbone(x)
    start = levels[-1]
    if feature == "all":
        resized = [F.interpolate(level, levels[0].shape[-2:], mode="bilinear") for level in levels]
        mixed = conv(torch.cat(resized, 1), decoder.mix[0])
        start = batch_norm(mixed, decoder.mix[1]).clamp(min=0)
    initial = {}
    for task in (*tasks, *extra):
        first, second = decoder.initial_features[task.name]
        initial[task.name] = residual(residual(start, first), second)
    reduced = {name: conv(each, decoder.reductions[name]) for name, each in initial.items()}
    diffused = diffuse(decoder.diffusion, reduced)
    predictions = decoder(x)
    for name, each in initial.items():
        assert_same(predictions.aux_logits[0][name], conv(each, decoder.initial_heads[name]))
    assert list(predictions.logits) == ["semseg", "depth"]
    for task in tasks:
        (first, second), output = decoder.final_heads[task.name]
        expected = conv(residual(residual(diffused[task.name], first), second), output)
        assert_same(predictions.logits[task.name], expected)


@pytest.mark.parametrize(
    ("backbone", "feature", "count"),
    [("hrnet_w18", "all", 988_477), ("resnet50", "last", 3_264_317)],
)
def test_number_of_parameters(backbone: str, feature: str, count: int) -> None:
    """The published code concatenates all levels without the 1x1 convolution `mix`."""
    tasks = make_tasks("task", (40, 1, 3, 1))
    decoder = PAPNet(
        lambda: Backbone(backbone, pretrained=False), LinearHead, tasks, feature=feature
    )
    parts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in decoder.named_children()
    }
    heads = parts.pop("final_heads")
    del parts["backbone"]
    parts.pop("mix", None)
    assert heads == 148_141
    assert sum(parts.values()) == count


def test_sharing_weights_are_the_mixture(make_task: Callable[..., Task]) -> None:
    tasks, extra = [make_task("semseg"), make_task("depth")], [make_task("edge")]
    decoder = PAPNet(build_backbone, LinearHead, tasks, extra, width=8, learn_beta=True)
    with torch.no_grad():
        decoder.diffusion.mixture[0, 2] = 1.0
    shares = decoder.sharing_weights(make_images())["affinity"]
    assert shares.tasks == ("semseg", "depth")
    assert shares.sources == ("semseg", "depth", "edge")
    e = torch.e
    expected = torch.tensor([[1 / (2 + e), 1 / (2 + e), e / (2 + e)], [1 / 3] * 3])
    torch.testing.assert_close(shares.weights, expected)
    assert decoder.diffusion.beta_logits.sigmoid().tolist() == pytest.approx([0.05] * 2)
