"""Customized sharing: a shared backbone and one backbone per task, mixed level by level."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from densemtl.decoders.customized_sharing import CustomizedSharing
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.heads.linear import LinearHead
from densemtl.layers.channel_mixing import PyramidMixer
from densemtl.tasks.base import Task
from tests.helpers.decoder_cases import (
    build_backbone,
    conv,
    make_images,
    make_single_task_decoder,
    randomize_batch_norms,
)
from tests.helpers.exact import assert_same

pytestmark = pytest.mark.usefixtures("double_precision")

NAMES = ("semseg", "depth")


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task(name) for name in NAMES]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def randomize(decoder: CustomizedSharing) -> CustomizedSharing:
    for weight in decoder.mixers.parameters():
        weight.normal_(0, 0.1)
    return randomize_batch_norms(decoder)


def test_equations(tasks: list[Task]) -> None:
    decoder, x = randomize(CustomizedSharing(build_backbone, LinearHead, tasks)), make_images()
    shared, final = decoder.shared_backbone(x), decoder(x).logits
    for task in tasks:
        own = decoder.backbones[task.name](x)
        joined: list[Tensor] = []
        for level, (first, other) in enumerate(zip(own, shared, strict=True)):
            layer = decoder.mixers[task.name].levels[level]
            joined.append(conv(torch.cat([first, other], 1), layer))
        expected = decoder.heads[task.name](joined)
        assert_same(final[task.name], expected)


@pytest.mark.parametrize("names", [NAMES, NAMES[:1]])
def test_alpha_of_one_equals_single_task_networks(
    tasks: list[Task], names: tuple[str, ...]
) -> None:
    chosen, x = [task for task in tasks if task.name in names], make_images()
    decoder = randomize_batch_norms(
        CustomizedSharing(build_backbone, LinearHead, chosen, alpha=1.0)
    )
    for task in chosen:
        expected = make_single_task_decoder(decoder, task)(x).logits[task.name]
        assert_same(decoder(x).logits[task.name], expected)


def test_alpha_of_zero_equals_hard_sharing(tasks: list[Task]) -> None:
    decoder = randomize_batch_norms(CustomizedSharing(build_backbone, LinearHead, tasks, alpha=0.0))
    x = make_images()
    hard = HardSharing(build_backbone, LinearHead, tasks).eval()
    hard.backbone.load_state_dict(decoder.shared_backbone.state_dict())
    hard.heads.load_state_dict(decoder.heads.state_dict())
    for task, expected in hard(x).logits.items():
        assert_same(decoder(x).logits[task], expected)


def test_identical_pyramids_pass_through_initial_mixers_unchanged(tasks: list[Task]) -> None:
    decoder = randomize_batch_norms(CustomizedSharing(build_backbone, LinearHead, tasks))
    x = make_images()
    for own in decoder.backbones.values():
        own.load_state_dict(decoder.shared_backbone.state_dict())
    levels = decoder.shared_backbone(x)
    for task in NAMES:
        for got, expected in zip(decoder.mixers[task]([levels, levels]), levels, strict=True):
            assert_same(got, expected)


def test_task_order_does_not_matter(tasks: list[Task]) -> None:
    one, x = randomize(CustomizedSharing(build_backbone, LinearHead, tasks)), make_images()
    other = CustomizedSharing(build_backbone, LinearHead, tasks[::-1]).eval()
    other.load_state_dict(one.state_dict())
    expected = one(x).logits
    assert all(torch.equal(logits, expected[task]) for task, logits in other(x).logits.items())


def test_loss_trains_only_parameters_that_its_task_uses(tasks: list[Task]) -> None:
    decoder = CustomizedSharing(build_backbone, LinearHead, tasks)
    with torch.enable_grad():
        decoder(make_images()).logits["depth"].square().mean().backward()
    groups = decoder.parameter_groups()
    trained = {name: any(p.grad is not None for p in group) for name, group in groups.items()}
    assert trained == {"shared": True, "semseg": False, "depth": True, "fusion": True}


def test_sharing_weights_are_block_norms_of_the_mixers(tasks: list[Task]) -> None:
    decoder = CustomizedSharing(build_backbone, LinearHead, tasks, alpha=0.7)
    decoder.mixers["depth"].levels[1].weight.mul_(2)
    sharing = decoder.sharing_weights(make_images())
    assert list(sharing) == ["level 1", "level 2", "level 3", "level 4"]
    second = sharing["level 2"]
    assert (second.tasks, second.sources) == (NAMES, ("own", "shared"))
    torch.testing.assert_close(second.weights, torch.tensor([[0.7, 0.3], [1.4, 0.6]]))


def test_block_norms_are_computed_per_pyramid() -> None:
    mixer = PyramidMixer([3], [0.5, 0.25])
    weight = torch.arange(18.0).view(3, 6)
    mixer.levels[0].weight.copy_(weight[:, :, None, None])
    expected = [(weight[:, :3] ** 2).sum() / 3, (weight[:, 3:] ** 2).sum() / 3]
    torch.testing.assert_close(mixer.compute_block_norms(), torch.stack(expected).sqrt()[None])
