"""Joint task-recursive learning: equations, order of visits and sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.decoders.jtrl import JTRL
from densemtl.errors import ConfigError
from densemtl.heads.linear import LinearHead
from densemtl.tasks.base import Task
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

NAMES = ["semseg", "depth", "normals"]


def make_decoder(make_task: Callable[..., Task], names: list[str] = NAMES, **options: Any) -> JTRL:
    torch.manual_seed(0)
    tasks = [make_task(name) for name in names]
    with torch.no_grad():
        return randomize_batch_norms(JTRL(build_backbone, LinearHead, tasks, **options))


def up(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def conv_bn(x: Tensor, layers: torch.nn.Sequential) -> Tensor:
    return batch_norm(conv(x, layers[0]), layers[1]).clamp(min=0)


def attend(module: torch.nn.Module, own: Tensor, others: list[Tensor]) -> Tensor:
    first, second = [], []
    for index, other in enumerate(others):
        gate = conv(torch.cat([own, other], 1), module.gates[index]).sigmoid()
        balanced = gate * own + (1 - gate) * other
        down, norm, _, last = module.attention[index]
        hidden = F.conv2d(balanced, down.weight, stride=2, padding=1)
        mask = conv(batch_norm(hidden, norm).clamp(min=0), last)
        mask = up(mask, own.shape[-2:]).sigmoid()
        first.append((1 + mask) * own)
        second.append((1 + mask) * other)
    return conv(torch.cat([*first, *second], 1), module.output)


def compute_states(decoder: JTRL, levels: list[Tensor], read: Callable[[str], list[str]]):
    """Return {task: its states, coarsest first}."""
    order = list(decoder.order)
    latest = {task: conv_bn(levels[-1], decoder.first_states[task]) for task in order}
    history: dict[str, list[Tensor]] = {task: [] for task in order}
    for index in (3, 2, 1, 0):
        module, size = decoder.levels[index], levels[index].shape[-2:]
        if index < 3:
            latest = {t: up(conv_bn(latest[t], module.lift[t]), size) for t in order}
        for task in order:
            others = [latest[other] for other in read(task)]
            attended = attend(module.attention[task], latest[task], others)
            inputs = [attended, levels[index], *(up(old, size) for old in history[task][::-1])]
            fused = conv_bn(torch.cat(inputs, 1), module.fuse[task])
            latest[task] = residual(fused, module.refine[task])
        for task in order:
            history[task].append(latest[task])
    return history


@torch.no_grad()
@pytest.mark.parametrize("sources", ["all", "previous"])
@pytest.mark.parametrize("order", [None, ["depth", "normals", "semseg"]])
def test_equations(make_task: Callable[..., Task], order: list[str] | None, sources: str) -> None:
    decoder = make_decoder(make_task, order=order, sources=sources)
    visits = order or NAMES
    assert list(decoder.order) == visits

    def read(task: str) -> list[str]:
        if sources == "previous":
            return [visits[visits.index(task) - 1]]
        return [other for other in visits if other != task]

    x = make_images()
    history = compute_states(decoder, decoder.backbone(x), read)
    predictions = decoder(x)
    assert list(predictions.logits) == NAMES
    for task in NAMES:
        states = history[task][::-1]
        assert_same(predictions.logits[task], decoder.heads[task](states))
        for level, state in enumerate(states):
            expected = conv(state, decoder.state_heads[level][task])
            assert_same(predictions.aux_logits[level][task], expected)


@torch.no_grad()
def test_order_of_visits_changes_predictions(make_task: Callable[..., Task]) -> None:
    one = make_decoder(make_task, order=NAMES)
    other = make_decoder(make_task, order=NAMES[::-1])
    other.load_state_dict(one.state_dict())
    x = make_images()
    assert not torch.allclose(one(x).logits["depth"], other(x).logits["depth"])


def test_single_task_has_no_attention(make_task: Callable[..., Task]) -> None:
    decoder = make_decoder(make_task, ["depth"])
    assert not any(level.attention for level in decoder.levels)
    assert decoder(make_images()).logits["depth"].isfinite().all()


def test_loss_of_one_task_trains_earlier_states_of_the_others(
    make_task: Callable[..., Task],
) -> None:
    decoder = make_decoder(make_task)
    decoder(make_images()).logits["semseg"].sum().backward()
    assert decoder.first_states["normals"][0].weight.grad.abs().sum() > 0
    assert decoder.levels[0].refine["normals"].body[0][0].weight.grad is None


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["depth", "semseg", "normal"], "decoder.order: no task 'normal', did you mean 'normals'"),
        (["depth", "semseg"], "must contain each of semseg, depth, normals once, not depth, sem"),
        (["depth", "depth", "semseg", "normals"], "once, not depth, depth, semseg, normals"),
    ],
)
def test_wrong_order_is_an_error(
    make_task: Callable[..., Task], order: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_decoder(make_task, order=order)
