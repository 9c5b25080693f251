"""Losses, terms and normalisation on shares of a batch: the value and gradient of the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.decoders.sluice import subspace_orthogonality
from densemtl.distributed.collectives import (
    all_gather_object,
    all_reduce_mean_,
    distributed_session,
    get_rank,
    get_world_size,
)
from densemtl.distributed.sync_batch_norm import convert_sync_batchnorm
from densemtl.layers.mixture_of_experts import ExpertRouting, load_balancing_loss
from densemtl.types import IGNORE_INDEX
from tests.helpers.two_ranks import start_two_ranks, wait_for_both

IMAGES, SIZE = 4, (6, 7)
LOSSES = {
    "cross-entropy": ("classification", {"class_names": ["a", "b", "c"]}),
    "balanced": ("binary", {"positive_weight": 0.9}),
    "balanced by the batch": ("binary", {}),
    "l1": ("regression", {}),
    "log_l1": ("regression", {"loss": "log_l1"}),
    "berhu": ("regression", {"loss": "berhu"}),
    "silog": ("regression", {"loss": "silog"}),
    "vectors": ("direction", {}),
    "cosine": ("direction", {"loss": "cosine"}),
}
Told = tuple[Tensor, Tensor]
"""A scalar, and its gradient for what stands for a weight of the network."""


def loss(name: str, own: slice) -> Told:
    """One of the images has no label at all, and so one rank fewer valid pixels."""
    kind, options = LOSSES[name]
    task = registry.create("tasks", kind, name, options=options)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(IMAGES, task.channels, *SIZE, generator=generator)
    label = torch.randn(IMAGES, task.channels, *SIZE, generator=generator)
    if task.make_empty_label((1, 1)).dtype.kind == "u":
        target = (label.argmax(1) if task.channels > 1 else (label > 1)[:, 0]).byte()
        target[0], target[1, :3] = IGNORE_INDEX, IGNORE_INDEX
    else:
        target = label.abs() + 0.5
        target[0], target[1, :, :3] = torch.nan, torch.nan
    return told(lambda weight: task.compute_loss(weight * features[own], target[own]))


def load_balance(own: slice) -> Told:
    scores = torch.randn(IMAGES, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    wiring = ExpertRouting({"a": "x", "b": "x", "c": "x"}, {"one": ("a", "b", "c")})
    return told(
        lambda weight: load_balancing_loss(wiring, {"one": (weight * scores[own]).softmax(1)})
    )


def orthogonality(own: slice) -> Told:
    features = torch.randn(IMAGES, 4, *SIZE, generator=torch.Generator().manual_seed(3))
    return told(lambda weight: subspace_orthogonality(weight * features[own], 2))


def normalised(own: slice) -> Told:
    """The loss gives images different weights, or gradients of statistics would be equal."""
    features = torch.randn(IMAGES, 3, *SIZE, generator=torch.Generator().manual_seed(4))
    norm = nn.Sequential(nn.BatchNorm2d(3))
    if get_world_size() > 1:
        convert_sync_batchnorm(norm)
    importance = torch.arange(1.0, IMAGES + 1)[own].view(-1, 1, 1, 1)

    def lost(weight: Tensor) -> Tensor:
        mean = (importance * norm(weight * features[own] + features[own].exp()).square()).mean()
        parts = all_gather_object(float(mean.detach()))
        return mean + sum(parts) / len(parts) - mean.detach()

    value, gradient = told(lost)
    state = [each.flatten().float() for each in norm.state_dict().values()]
    return torch.cat([value.flatten(), *state]), gradient


def told(compute: Callable[[Tensor], Tensor]) -> Told:
    weight = torch.tensor(1.3, requires_grad=True)
    value = compute(weight)
    value.backward()
    assert weight.grad is not None
    all_reduce_mean_([weight.grad])
    return value.detach(), weight.grad


def everything(own: slice) -> dict[str, Told]:
    terms = {"load balance": load_balance, "orthogonality": orthogonality, "norm": normalised}
    return {
        **{name: loss(name, own) for name in LOSSES},
        **{name: term(own) for name, term in terms.items()},
    }


def on_a_rank(folder: Path) -> None:
    """Every second image is this rank's."""
    with distributed_session("cpu"):
        torch.save(everything(slice(get_rank(), None, 2)), folder / f"{get_rank()}.pt")


def test_shares_of_a_batch_have_the_value_and_gradient_of_the_whole(tmp_path: Path) -> None:
    wait_for_both(start_two_ranks(tmp_path, on_a_rank, tmp_path))
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    for name, (value, gradient) in everything(slice(None)).items():
        assert gradient != 0, name
        torch.testing.assert_close(first[name][0], value, rtol=1e-5, atol=1e-6, msg=name)
        torch.testing.assert_close(first[name][1], gradient, rtol=1e-5, atol=1e-6, msg=name)
        assert torch.equal(first[name][0], second[name][0]), name
        assert torch.equal(first[name][1], second[name][1]), name
