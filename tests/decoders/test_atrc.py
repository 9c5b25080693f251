"""ATRC: published size, equations in plain torch, contexts against loops over pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from densemtl.backbones.backbone import Backbone
from densemtl.create import create_tasks
from densemtl.decoders.atrc import ATRC
from densemtl.decoders.atrc_contexts import (
    Context,
    ContextFusion,
    GlobalContext,
    LabelContext,
    LocalContext,
    compute_regions,
)
from densemtl.decoders.atrc_search import SearchedContext
from densemtl.errors import ConfigError
from densemtl.heads.linear import LinearHead
from densemtl.tasks.base import Task
from densemtl.types import FeatureInfo
from tests.decoders.test_invpt import FixedFeatures, make_features, upsample
from tests.decoders.test_published_parameter_counts import make_tasks
from tests.helpers.decoder_cases import batch_norm, conv, randomize_batch_norms
from tests.helpers.exact import assert_same

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ["semseg", "depth", "edge"]
PYRAMID = FeatureInfo((4, 5, 6), (4, 8, 16))
HRNET18 = FeatureInfo((18, 36, 72, 144), (4, 8, 16, 32))
HRNET48 = FeatureInfo((48, 96, 192, 384), (4, 8, 16, 32))


def build(info: FeatureInfo, tasks: Sequence[Any], **options: Any) -> ATRC:
    def make_backbone() -> Backbone:
        return FixedFeatures(info)  # type: ignore[return-value]

    return ATRC(make_backbone, LinearHead, tasks, **options)


def count(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task(name) for name in NAMES]


@pytest.mark.parametrize(
    ("info", "features", "contexts", "head"),
    [
        (HRNET18, 651_776, 218_616, 3_060),
        (HRNET48, 4_667_040, 1_572_480, 8_145),
    ],
    ids=["hrnet18", "hrnet48"],
)
def test_parameters_equal_published_code(
    info: FeatureInfo, features: int, contexts: int, head: int
) -> None:
    with torch.device("meta"):
        decoder = build(info, make_tasks("task", (40, 1, 3, 1)), context="global")
    assert count(decoder.features) == features
    assert count(decoder.contexts) + count(decoder.fusions) == contexts
    assert count(decoder.heads) == head
    assert count(decoder) == features + contexts + head


def make_dataset_tasks(dataset: str) -> list[Task]:
    others = {
        "nyud": ["depth", "normals", "edge"],
        "pascal_context": [
            {"name": "human_parts", "class_names": [str(i) for i in range(7)]},
            *("saliency", "normals", "edge"),
        ],
    }[dataset]
    classes = {"nyud": 40, "pascal_context": 21}[dataset]
    semseg = {"name": "semseg", "class_names": [str(i) for i in range(classes)]}
    return list(create_tasks([semseg, *others]))  # type: ignore[list-item]


def read_contexts(dataset: str) -> dict[str, Any]:
    """Return the contexts of a recipe, which were found for HRNet-18."""
    file = CONFIGS / dataset / "modern" / "atrc.yaml"
    contexts: dict[str, Any] = yaml.safe_load(file.read_text())["decoder"]["contexts"]
    return contexts


HRNET48_CONTEXTS = {
    "semseg": {"depth": "none", "normals": "none", "edge": "source_label"},
    **{
        task: {
            **dict.fromkeys(("semseg", "edge"), "source_label"),
            **dict.fromkeys(("depth", "normals"), "global"),
        }
        for task in ("depth", "normals")
    },
}


@pytest.mark.parametrize(
    ("info", "dataset", "contexts", "parameters", "binary_heads", "gmac"),
    [
        (HRNET18, "nyud", {}, 1_197_214, 1, 18.837),
        (HRNET48, "nyud", {}, 8_406_842, 1, 127.722),
        (HRNET18, "nyud", read_contexts("nyud"), 1_197_214, 1, 18.712),
        (HRNET48, "nyud", HRNET48_CONTEXTS, 7_145_682, 1, 110.359),
        (HRNET18, "pascal_context", read_contexts("pascal_context"), 1_520_110, 2, 23.326),
    ],
    ids=["target_label-18", "target_label-48", "nyud-18", "nyud-48", "pascal_context-18"],
)
def test_label_contexts_have_published_size_and_cost(
    info: FeatureInfo,
    dataset: str,
    contexts: dict[str, Any],
    parameters: int,
    binary_heads: int,
    gmac: float,
) -> None:
    """The published code predicts two initial logits of binary tasks, here one."""
    height, width = {"nyud": (448, 576), "pascal_context": (512, 512)}[dataset]
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder = build(info, make_dataset_tasks(dataset), contexts=contexts).eval()
        decoder.decode_features(
            [
                torch.empty(1, channels, height // stride, width // stride)
                for channels, stride in zip(info.channels, info.strides, strict=True)
            ]
        )
    extra = binary_heads * (sum(info.channels) + 1)
    assert count(decoder) - count(decoder.heads) == parameters - extra
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=1e-2)


def test_multiply_adds_equal_published_code() -> None:
    """Compare with the code for HRNet-18, NYUD-v2 and global contexts.

    It resizes before the first convolution, as is done here.
    """
    info = HRNET18
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder = build(info, make_tasks("task", (40, 1, 3, 1)), context="global").eval()
        sizes = [(448 // stride, 576 // stride) for stride in info.strides]
        decoder.decode_features(
            [torch.empty(1, c, *size) for c, size in zip(info.channels, sizes, strict=True)]
        )
    assert counter.get_total_flops() / 2 == pytest.approx(14.546e9, rel=1e-2)


def block(x: Tensor, layers: Sequence[Any]) -> Tensor:
    """Apply a convolution and batch normalization."""
    return batch_norm(conv(x, layers[0]), layers[1])


def project(x: Tensor, layers: Sequence[Any], last: Callable[[Tensor], Tensor]) -> Tensor:
    return last(block(block(x, layers[:2]).clamp(min=0), layers[3:5]))


def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def softplus(x: Tensor) -> Tensor:
    return (1 + x.exp()).log()


def read_globally(context: Any, target: Tensor, source: Tensor, _: Tensor | None) -> Tensor:
    """Compute the map of all pairs of pixels."""
    queries, keys = project(target, context.query, softplus), project(source, context.key, softplus)
    weights = torch.einsum("bdij,bdkl->bijkl", queries, keys)
    weights = weights / weights.sum((3, 4), keepdim=True)
    return torch.einsum("bijkl,bdkl->bdij", weights, relu(block(source, context.value)))


def read_regions(context: Any, target: Tensor, source: Tensor, logits: Tensor | None) -> Tensor:
    assert logits is not None
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits) - logits / 2, logits / 2], 1)
    shares = logits.exp() / logits.exp().sum((2, 3), keepdim=True)
    regions = torch.einsum("bkij,bcij->bck", shares, source)[..., None]
    queries, keys = project(target, context.query, relu), project(regions, context.key, relu)
    weights = (torch.einsum("bdij,bdkl->bijk", queries, keys) / queries.shape[1] ** 0.5).exp()
    values = relu(block(regions, context.value))[..., 0]
    return torch.einsum("bijk,bdk->bdij", weights / weights.sum(3, True), values)


def read_locally(context: Any, target: Tensor, source: Tensor, _: Tensor | None) -> Tensor:
    """Loop over pixels and their windows."""
    queries, keys = project(target, context.query, relu), project(source, context.key, relu)
    values, output = relu(block(source, context.value)), torch.zeros_like(queries)
    height, width = queries.shape[2:]
    for row in range(height):
        for column in range(width):
            rows, columns = (
                slice(max(at - 4, 0), min(at + 5, side))
                for at, side in ((row, height), (column, width))
            )
            window = keys[:, :, rows, columns].flatten(2)
            weights = torch.einsum("bd,bdn->bn", queries[:, :, row, column], window)
            weights = (weights / queries.shape[1] ** 0.5).softmax(1)
            values_here = values[:, :, rows, columns].flatten(2)
            output[:, :, row, column] = torch.einsum("bn,bdn->bd", weights, values_here)
    return output


REFERENCES: dict[type[Context], Callable[..., Tensor]] = {
    GlobalContext: read_globally,
    LabelContext: read_regions,
    LocalContext: read_locally,
}


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("kind", list(REFERENCES), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("classes", [1, 3])
def test_contexts(kind: type[Context], classes: int) -> None:
    torch.manual_seed(0)
    context = kind(6, 4)
    randomize_batch_norms(context)  # type: ignore[arg-type]
    target, source = torch.randn(2, 6, 11, 10), torch.randn(2, 6, 11, 10)
    logits = torch.randn(2, classes, 11, 10)
    expected = REFERENCES[kind](context, target, source, logits)
    assert_same(context(target, source, compute_regions(logits)), expected)
    assert expected.std() > 1e-3


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
def test_equations(tasks: list[Task]) -> None:
    contexts = {
        "semseg": {"semseg": "target_label", "depth": "global", "edge": "source_label"},
        "depth": {"semseg": "source_label", "depth": "local", "edge": "none"},
        "edge": {"semseg": "none", "depth": "none", "edge": "none"},
    }
    owners = {
        ("semseg", "semseg"): "semseg",
        ("semseg", "edge"): "edge",
        ("depth", "semseg"): "semseg",
    }
    decoder = build(PYRAMID, tasks, contexts=contexts, value_classes=0)
    randomize_batch_norms(decoder)
    features = make_features(PYRAMID, height=40, width=56)
    size = features[0].shape[2:]
    joint = torch.cat([upsample(each, size) for each in features], 1)
    maps = {task: relu(block(joint, decoder.features[task])) for task in NAMES}
    found = decoder.decode_features(features)
    initial = {}
    for task, (first, last) in decoder.initial_heads.items():
        initial[task] = conv(relu(block(joint, first)), last)
        assert_same(found.aux_logits[0][task], initial[task])
    assert sorted(initial) == ["edge", "semseg"]
    for target in NAMES:
        read = []
        for source, context in decoder.contexts[target].items():
            logits = initial.get(owners.get((target, source), ""))
            read.append(REFERENCES[type(context)](context, maps[target], maps[source], logits))
        fusion, x = decoder.fusions[target], maps[target]
        if read:
            x = torch.cat([x, block(torch.cat(read, 1), fusion.reduce)], 1)
        x = conv(relu(block(x, fusion.mix)), decoder.heads[target].levels[0])
        assert_same(found.logits[target], x)
    kinds = {name: [type(each) for each in decoder.contexts[name].values()] for name in NAMES}
    assert kinds == {
        "semseg": [LabelContext, GlobalContext, LabelContext],
        "depth": [LabelContext, LocalContext],
        "edge": [],
    }


def test_initial_predictions_pass_no_gradient_to_the_backbone(tasks: list[Task]) -> None:
    decoder, features = build(PYRAMID, tasks), make_features(PYRAMID, height=32, width=48)
    leaves = [each.requires_grad_() for each in features]
    decoder.decode_features(leaves).aux_logits[0]["semseg"].sum().backward()
    assert all(each.grad is None for each in leaves)


@torch.no_grad()
def test_contexts_have_no_effect_at_initialization() -> None:
    fusion, feature = ContextFusion(6, 3, 2), torch.randn(2, 6, 5, 5)
    first, second = (fusion(feature, [torch.randn(2, 3, 5, 5)] * 2) for _ in range(2))
    assert torch.equal(first, second)
    nn.init.ones_(fusion.reduce[1].weight)  # type: ignore[index, arg-type]
    first, second = (fusion(feature, [torch.randn(2, 3, 5, 5)] * 2) for _ in range(2))
    assert not torch.equal(first, second)


def test_sharing_weights_are_norms_of_the_columns_of_each_source(tasks: list[Task]) -> None:
    decoder = build(PYRAMID, tasks, contexts={"depth": {"edge": "none"}})
    image = torch.zeros(1, 3, 32, 32)
    assert not decoder.sharing_weights(image)["contexts"].weights.any()
    fusion: Any = decoder.fusions["depth"]
    nn.init.constant_(fusion.reduce[1].weight, 2.0)
    inner = fusion.reduce[0].in_channels // 2
    expected = [
        2 * fusion.reduce[0].weight[:, part].norm().item()
        for part in (slice(inner), slice(inner, None))
    ]
    found = decoder.sharing_weights(image)["contexts"].weights
    torch.testing.assert_close(found[1], torch.tensor([*expected, 0.0]))
    assert not found[[0, 2]].any()


@pytest.mark.parametrize(
    "contexts",
    [{"depht": {"edge": "none"}}, {"depth": {"depht": "local"}}],
    ids=["target", "source"],
)
def test_unknown_task_raises_config_error(tasks: list[Task], contexts: dict[str, Any]) -> None:
    message = "decoder.contexts: unknown task 'depht'; did you mean 'depth'"
    with pytest.raises(ConfigError, match=message):
        build(PYRAMID, tasks, contexts=contexts)


@pytest.mark.parametrize(
    ("source", "context"), [("semseg", "target_label"), ("depth", "source_label")]
)
def test_regions_of_a_task_without_regions_raise_config_error(
    tasks: list[Task], source: str, context: str
) -> None:
    message = rf"decoder.contexts.depth.{source}: {context} needs regions, but 'depth' has no"
    with pytest.raises(ConfigError, match=message):
        build(PYRAMID, tasks, contexts={"depth": {source: context}}, value_classes=0)


def test_one_value_class_raises_config_error(tasks: list[Task]) -> None:
    with pytest.raises(ConfigError, match=r"decoder.value_classes: 1 class has no boundaries"):
        build(PYRAMID, tasks, value_classes=1)


def test_regions_of_values_are_read(tasks: list[Task]) -> None:
    decoder = build(PYRAMID, tasks, context="source_label", value_classes=7)
    predictions = decoder.decode_features(make_features(PYRAMID, height=32, width=48))
    classes = predictions.value_class_logits
    assert list(classes) == ["depth"]
    assert classes["depth"].logits.shape == (2, 7, 8, 12)
    assert sorted(predictions.aux_logits[0]) == ["edge", "semseg"]
    nn.init.ones_(decoder.fusions["edge"].reduce[1].weight)  # type: ignore[union-attr, index, arg-type]
    decoder.decode_features(make_features(PYRAMID, height=32, width=48)).logits[
        "edge"
    ].square().sum().backward()
    assert decoder.initial_heads["depth"][1].weight.grad.any()  # type: ignore[index, union-attr]


def test_default_context_is_global_without_regions(tasks: list[Task]) -> None:
    decoder = build(PYRAMID, tasks, context="target_label", value_classes=0)
    read: Any = decoder.contexts
    assert {type(each) for each in read["depth"].values()} == {GlobalContext}
    assert {type(each) for each in read["semseg"].values()} == {LabelContext}


@torch.no_grad()
def test_search_mixes_contexts_by_their_probabilities() -> None:
    torch.manual_seed(0)
    mixture = SearchedContext(["global", "target_label"], 6, 4, temperature=1.0).eval()
    mixture.logits.copy_(torch.tensor([0.5, 0.1, 0.7]))
    target, source = torch.randn(2, 6, 5, 7), torch.randn(2, 6, 5, 7)
    regions = compute_regions(torch.randn(2, 3, 5, 7))
    found = mixture(target, source, {"target_label": regions})
    shares = torch.tensor([0.5, 0.1, 0.7]).softmax(0)
    parts = [
        mixture.contexts[f"{name}_context"](target, source, regions)
        for name in ("global", "target_label")
    ]
    torch.testing.assert_close(found, shares[1] * parts[0] + shares[2] * parts[1])


@torch.no_grad()
def test_search_samples_in_training_and_chooses_a_clear_context_for_good() -> None:
    torch.manual_seed(0)
    mixture = SearchedContext(["global"], 6, 4, temperature=1.0).train()
    maps = torch.randn(2, 6, 5, 7)
    assert not torch.equal(mixture(maps, maps, {}), mixture(maps, maps, {}))
    mixture.logits.copy_(torch.tensor([0.0, 0.61]))  # probabilities .352 and .648
    mixture(maps, maps, {})
    assert mixture.chosen == -1
    mixture.logits.copy_(torch.tensor([0.0, 0.63]))  # probabilities .347 and .652
    first = mixture(maps, maps, {})
    mixture.logits.copy_(torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(mixture(maps, maps, {}), first)
    assert mixture.compute_probabilities().tolist() == [0, 1]
    restored = SearchedContext(["global"], 6, 4, temperature=1.0)
    restored.load_state_dict(mixture.state_dict())
    assert restored.chosen == 1


def test_search_reports_probabilities_and_trains_them(tasks: list[Task]) -> None:
    decoder = build(PYRAMID, tasks, search=True, value_classes=0)
    nn.init.ones_(decoder.fusions["depth"].reduce[1].weight)  # type: ignore[union-attr, index, arg-type]
    predictions = decoder.decode_features(make_features(PYRAMID, height=32, width=48))
    assert sorted(predictions.aux_logits[0]) == ["edge", "semseg"]
    predictions.logits["depth"].square().sum().backward()
    searched: Any = decoder.contexts["depth"]
    assert searched["semseg"].choices == ("none", "global", "source_label")
    assert searched["semseg"].logits.grad.any()
    found = decoder.sharing_weights(torch.zeros(1, 3, 32, 32))
    assert list(found) == ["contexts", "source semseg", "source depth", "source edge"]
    assert found["source edge"].sources == (
        "none",
        "global",
        "local",
        "target_label",
        "source_label",
    )
    expected = torch.tensor([[0.25, 0.25, 0, 0.25, 0.25], [1 / 3, 1 / 3, 0, 0, 1 / 3]])
    torch.testing.assert_close(found["source edge"].weights[:2], expected)
    own = torch.tensor([1 / 3, 1 / 3, 0, 1 / 3, 0])
    torch.testing.assert_close(found["source edge"].weights[2], own)


def test_search_with_given_contexts_raises_config_error(tasks: list[Task]) -> None:
    with pytest.raises(ConfigError, match=r"decoder.contexts: cannot be set with decoder.search"):
        build(PYRAMID, tasks, search=True, contexts={"depth": {"edge": "none"}})
