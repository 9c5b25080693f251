"""Sluice networks: equations, initialization and orthogonality loss."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from densemtl.decoders.sluice import Sluice, subspace_orthogonality
from densemtl.errors import ConfigError, ModelError
from densemtl.heads.deeplabv3 import DeepLabV3Head
from densemtl.heads.linear import LinearHead
from densemtl.tasks.base import Task
from tests.helpers.decoder_cases import build_backbone, conv, make_images, randomize_batch_norms
from tests.helpers.exact import assert_same

pytestmark = pytest.mark.usefixtures("double_precision")

NAMES = ("semseg", "depth", "normals")


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task(name) for name in NAMES]


def mixed(decoder: Sluice, x: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Return the stage outputs of each task's ResNet before and after the exchange."""
    parts = decoder.subspaces
    nets = [list(net.net.children()) for net in decoder.backbones.values()]
    features = [nn.Sequential(*layers[:-4])(x) for layers in nets]
    outputs: list[list[Tensor]] = [[] for _ in nets]
    pyramids: list[list[Tensor]] = [[] for _ in nets]
    for stage, alpha in enumerate(decoder.alphas):
        own = [layers[stage - 4](each) for layers, each in zip(nets, features, strict=True)]
        width = own[0].shape[1] // parts
        features = [torch.zeros_like(each) for each in own]
        for row in range(len(alpha)):
            to = slice(row % parts * width, (row % parts + 1) * width)
            for column in range(len(alpha)):
                start = column % parts * width
                taken = own[column // parts][:, start : start + width]
                features[row // parts][:, to] += alpha[row, column] * taken
        for index in range(len(nets)):
            outputs[index].append(own[index])
            pyramids[index].append(features[index])
    return outputs, pyramids


@torch.no_grad()
def randomize(decoder: Sluice) -> Sluice:
    for weights in (*decoder.alphas, decoder.betas):
        weights.normal_(0, 0.3)
    return randomize_batch_norms(decoder)


@torch.no_grad()
@pytest.mark.parametrize("head", [LinearHead, DeepLabV3Head])
@pytest.mark.parametrize("subspaces", [1, 2, 4])
def test_equations(
    tasks: list[Task], subspaces: int, head: type[LinearHead] | type[DeepLabV3Head]
) -> None:
    decoder, x = randomize(Sluice(build_backbone, head, tasks, subspaces=subspaces)), make_images()
    _, pyramids = mixed(decoder, x)
    final = decoder(x).logits
    for index, task in enumerate(tasks):
        *earlier, last = pyramids[index]
        summed = decoder.betas[index, -1] * last
        for stage, level in enumerate(earlier):
            pooled = F.avg_pool2d(level, level.shape[-1] // last.shape[-1])
            projection = decoder.projections[index][stage]
            summed += decoder.betas[index, stage] * conv(pooled, projection)
        expected = decoder.heads[task.name]([*earlier, summed])
        assert_same(final[task.name], expected)


@torch.no_grad()
def test_initial_weights_are_cross_stitch_in_each_subspace(tasks: list[Task]) -> None:
    decoder = Sluice(build_backbone, LinearHead, tasks, alpha=0.8)
    for alpha in decoder.alphas:
        for row in range(6):
            for column in range(6):
                share = 0.8 if row == column else 0.1 if row % 2 == column % 2 else 0.0
                assert alpha[row, column].item() == pytest.approx(share)
    assert decoder.betas.tolist() == [[0, 0, 0, 1]] * 3


@torch.no_grad()
@pytest.mark.parametrize("head", [LinearHead, DeepLabV3Head])
@pytest.mark.parametrize(("names", "alpha"), [(NAMES, 1.0), (("depth",), 0.9)])
def test_alpha_of_one_equals_single_task_networks(
    make_task: Callable[..., Task],
    names: tuple[str, ...],
    alpha: float,
    head: type[LinearHead] | type[DeepLabV3Head],
) -> None:
    tasks, x = [make_task(name) for name in names], make_images()
    decoder = randomize_batch_norms(Sluice(build_backbone, head, tasks, alpha=alpha))
    final = decoder(x).logits
    for task in tasks:
        alone = decoder.heads[task.name](decoder.backbones[task.name](x))
        assert_same(final[task.name], alone)


@torch.no_grad()
def test_task_order_does_not_matter(tasks: list[Task]) -> None:
    one, x = randomize(Sluice(build_backbone, LinearHead, tasks)), make_images()
    order = [2, 0, 1]
    other = Sluice(build_backbone, LinearHead, [tasks[index] for index in order]).eval()
    parts = [2 * index + part for index in order for part in range(2)]
    state = one.state_dict()
    moved = {name: each for name, each in state.items() if name.startswith(("backbones", "heads"))}
    moved |= {f"alphas.{stage}": alpha[parts][:, parts] for stage, alpha in enumerate(one.alphas)}
    moved["betas"] = one.betas[order]
    for to, index in enumerate(order):
        for stage in range(3):
            weight = state[f"projections.{index}.{stage}.weight"]
            moved[f"projections.{to}.{stage}.weight"] = weight
    other.load_state_dict(moved)
    expected = one(x).logits
    for task, logits in other(x).logits.items():
        assert_same(logits, expected[task])


def test_exchange_exports_with_dynamic_batch_and_size(tasks: list[Task]) -> None:
    decoder = randomize(Sluice(build_backbone, LinearHead, tasks))

    class Exchange(nn.Module):
        def forward(self, *features: Tensor) -> list[Tensor]:
            return decoder.exchange(1, list(features))

    def features(*sizes: int) -> tuple[Tensor, ...]:
        batch, height, width = sizes
        return tuple(
            torch.randn(batch, decoder.feature_info.channels[0], height, width) for _ in tasks
        )

    free = dict.fromkeys((0, 2, 3), Dim.DYNAMIC)
    program = torch.export.export(Exchange(), features(2, 3, 4), dynamic_shapes=((free,) * 3,))
    other = features(3, 5, 2)
    torch.testing.assert_close(program.module()(*other), decoder.exchange(1, list(other)))


@pytest.mark.parametrize("subspaces", [2, 4])
def test_orthogonality_loss_equals_reference(tasks: list[Task], subspaces: int) -> None:
    decoder = Sluice(build_backbone, LinearHead, tasks, subspaces=subspaces, orthogonality=0.3)
    nn.init.normal_(decoder.alphas[0])
    x = make_images()
    with torch.no_grad():
        outputs, _ = mixed(decoder, x)
    expected = 0.0
    for feature in (stage for task in outputs for stage in task):
        rows = feature.double().permute(0, 2, 3, 1).flatten(0, 2)
        width = rows.shape[1] // subspaces
        for i in range(subspaces):
            for j in range(i + 1, subspaces):
                first, other = rows[:, i * width :][:, :width], rows[:, j * width :][:, :width]
                gram = (first.T @ other) / len(rows)
                expected += 0.3 * (gram**2).sum().item() / width**2
    terms = decoder(x).aux_losses
    assert list(terms) == ["orthogonality"]
    assert terms["orthogonality"].item() == pytest.approx(expected, rel=1e-4)
    terms["orthogonality"].backward()
    first = next(decoder.backbones["depth"].parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_orthogonality_loss_is_computed_only_in_training_and_if_enabled(tasks: list[Task]) -> None:
    assert Sluice(build_backbone, LinearHead, tasks)(make_images()).aux_losses == {}
    decoder = Sluice(build_backbone, LinearHead, tasks, orthogonality=1.0).eval()
    assert decoder(make_images()).aux_losses == {}


def test_decoder_can_be_copied_after_a_forward_pass(tasks: list[Task]) -> None:
    decoder, x = Sluice(build_backbone, LinearHead, tasks, orthogonality=1.0), make_images()
    once = decoder(x).aux_losses["orthogonality"].item()
    assert copy.deepcopy(decoder)(x).aux_losses["orthogonality"].item() == pytest.approx(once)


def test_subspace_orthogonality_does_not_depend_on_resolution_or_batch_size() -> None:
    feature = torch.randn(2, 8, 4, 6)
    expected = subspace_orthogonality(feature, 2)
    assert expected > 0
    torch.testing.assert_close(subspace_orthogonality(feature.repeat(1, 1, 3, 2), 2), expected)
    torch.testing.assert_close(subspace_orthogonality(feature.repeat(3, 1, 1, 1), 2), expected)


def test_subspace_orthogonality_is_zero_for_disjoint_features() -> None:
    feature = torch.rand(2, 8, 4, 6)
    feature[:, :4, :, :3] = 0
    feature[:, 4:, :, 3:] = 0
    assert subspace_orthogonality(feature, 2) == 0


def test_subspace_orthogonality_is_finite_for_large_half_precision_maps() -> None:
    feature = torch.full((1, 4, 120, 160), 10.0)
    torch.testing.assert_close(
        subspace_orthogonality(feature.half(), 2),
        subspace_orthogonality(feature, 2),
        rtol=1e-2,
        atol=0,
    )


def test_sharing_weights_are_alphas_and_betas(tasks: list[Task]) -> None:
    decoder = randomize(Sluice(build_backbone, LinearHead, tasks))
    sharing = decoder.sharing_weights(make_images())
    assert list(sharing) == ["stage 1", "stage 2", "stage 3", "stage 4", "beta"]
    third = sharing["stage 3"]
    assert third.tasks == third.sources
    assert third.tasks[:3] == ("semseg.1", "semseg.2", "depth.1")
    assert torch.equal(third.weights, decoder.alphas[2])
    assert (sharing["beta"].tasks, len(sharing["beta"].sources)) == (NAMES, 4)
    assert torch.equal(sharing["beta"].weights, decoder.betas)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"subspaces": 5}, ModelError, r"5 does not divide .*\[32, 48, 192, 96\].*divisor of 16"),
        ({"orthogonality": 1.0, "subspaces": 1}, ConfigError, "needs 2 subspaces or more, not 1"),
    ],
)
def test_invalid_options_raise_errors(
    tasks: list[Task], options: dict[str, float], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Sluice(build_backbone, LinearHead, tasks, **options)
