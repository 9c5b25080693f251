"""Asymmetric sharing: some tasks also read the backbones of other tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from densemtl.decoders.asymmetric_sharing import AsymmetricSharing
from densemtl.errors import ConfigError
from densemtl.heads.linear import LinearHead
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

NAMES = ("semseg", "depth", "normals")
READS = {"semseg": ["normals", "depth"], "normals": ["depth"]}


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task(name) for name in NAMES]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def randomize(decoder: AsymmetricSharing) -> AsymmetricSharing:
    for weight in decoder.mixers.parameters():
        weight.normal_(0, 0.1)
    return randomize_batch_norms(decoder)


@pytest.mark.parametrize(
    ("given", "reads"), [(READS, READS), (None, {"normals": ["semseg", "depth"]}), ({}, {})]
)
def test_equations(
    tasks: list[Task], given: dict[str, list[str]] | None, reads: dict[str, list[str]]
) -> None:
    decoder = randomize(AsymmetricSharing(build_backbone, LinearHead, tasks, sources=given))
    x = make_images()
    pyramids = {task: net(x) for task, net in decoder.backbones.items()}
    final = decoder(x).logits
    for task in NAMES:
        levels = list(pyramids[task])
        if task in reads:
            for level, layer in enumerate(decoder.mixers[task].levels):
                read = [pyramids[name][level] for name in (task, *reads[task])]
                levels[level] = conv(torch.cat(read, 1), layer)
        assert_same(final[task], decoder.heads[task](levels))


@pytest.mark.parametrize("names", [NAMES, NAMES[:1]])
def test_alpha_of_one_equals_single_task_networks(
    tasks: list[Task], names: tuple[str, ...]
) -> None:
    chosen, x = [task for task in tasks if task.name in names], make_images()
    decoder = randomize_batch_norms(
        AsymmetricSharing(build_backbone, LinearHead, chosen, alpha=1.0)
    )
    for task in chosen:
        expected = make_single_task_decoder(decoder, task)(x).logits[task.name]
        assert_same(decoder(x).logits[task.name], expected)


def test_single_task_has_no_fusion_parameters_or_sharing_weights(tasks: list[Task]) -> None:
    decoder = AsymmetricSharing(build_backbone, LinearHead, tasks[:1])
    assert decoder.parameter_groups()["fusion"] == []
    assert decoder.sharing_weights(make_images()) == {}


def test_mixers_are_initialized_as_weighted_sums_of_corresponding_channels(
    tasks: list[Task],
) -> None:
    decoder = AsymmetricSharing(build_backbone, LinearHead, tasks, alpha=0.8)
    weight = decoder.mixers["normals"].levels[0].weight[:, :, 0, 0]
    eye = torch.eye(len(weight))
    torch.testing.assert_close(weight, torch.cat([0.8 * eye, 0.1 * eye, 0.1 * eye], 1))


def test_task_order_does_not_matter_with_explicit_sources(tasks: list[Task]) -> None:
    first = randomize(AsymmetricSharing(build_backbone, LinearHead, tasks, sources=READS))
    x = make_images()
    other = AsymmetricSharing(build_backbone, LinearHead, tasks[::-1], sources=READS).eval()
    other.load_state_dict(first.state_dict())
    expected = first(x).logits
    assert all(torch.equal(logits, expected[task]) for task, logits in other(x).logits.items())


@pytest.mark.parametrize(
    ("task", "trained"),
    [("semseg", set(NAMES)), ("depth", {"depth"}), ("normals", {"normals", "depth"})],
)
def test_loss_trains_the_backbones_that_its_task_reads(
    tasks: list[Task], task: str, trained: set[str]
) -> None:
    decoder = AsymmetricSharing(build_backbone, LinearHead, tasks, sources=READS)
    with torch.enable_grad():
        decoder(make_images()).logits[task].square().mean().backward()
    touched = {
        name
        for name, net in decoder.backbones.items()
        if any(each.grad is not None and each.grad.any() for each in net.parameters())
    }
    assert touched == trained


def test_sharing_weights_are_block_norms_of_the_mixers(tasks: list[Task]) -> None:
    decoder = AsymmetricSharing(build_backbone, LinearHead, tasks, sources=READS, alpha=0.6)
    decoder.mixers["normals"].levels[3].weight.mul_(3)
    sharing = decoder.sharing_weights(make_images())
    assert list(sharing) == ["level 1", "level 2", "level 3", "level 4"]
    last = sharing["level 4"]
    assert (last.tasks, last.sources) == (("semseg", "normals"), NAMES)
    torch.testing.assert_close(last.weights, torch.tensor([[0.6, 0.2, 0.2], [0.0, 1.2, 1.8]]))


@pytest.mark.parametrize(
    ("reads", "lines"),
    [
        (
            {"depht": ["semseg"], "semseg": ["normal", "semseg"], "normals": ["depth", "depth"]},
            [
                "decoder.sources: no task 'depht', did you mean 'depth'?",
                "decoder.sources.semseg.0: no task 'normal', did you mean 'normals'?",
                "decoder.sources.semseg.1: a task always reads its own backbone; remove 'semseg'",
                "decoder.sources.normals.1: 'depth' is named twice",
            ],
        ),
        (
            {"depth": ["xyz"]},
            ["decoder.sources.depth.0: no task 'xyz', choose from depth, normals, semseg"],
        ),
    ],
)
def test_invalid_sources_raise_all_errors_in_one_message(
    tasks: list[Task], reads: dict[str, list[str]], lines: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        AsymmetricSharing(build_backbone, LinearHead, tasks, sources=reads)
    assert str(error.value).splitlines() == lines
