"""Tests that losses and batch normalization on two ranks equal those of the joint batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.decoders.sluice import subspace_orthogonality
from densemtl.distributed import sync_batch_norm
from densemtl.distributed.collectives import (
    all_gather_object,
    all_reduce_mean_,
    get_rank,
    get_world_size,
)
from densemtl.distributed.session import distributed_session
from densemtl.distributed.sync_batch_norm import convert_sync_batchnorm
from densemtl.layers.mixture_of_experts import ExpertRouting, load_balancing_loss
from densemtl.tasks.class_gates import complete_targets, find_gates
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
    "angular": ("direction", {"loss": "angular"}),
    "validity": ("regression", {"entire_space": {"gate": "separate"}}),
    "gradient": ("regression", {"loss": [{"name": "multi_scale_gradient", "scales": 2}]}),
    **{
        f"{name} {kind}": (kind, {"loss": {"name": name, **loss}, **options})
        for kind, options in (("classification", {"class_names": ["a", "b", "c"]}), ("binary", {}))
        for name, loss in {
            "cross_entropy": {"label_smoothing": 0.1},
            "focal": {},
            "ohem": {"min_kept": 0.2},
            "dice": {},
            "lovasz": {},
        }.items()
    },
    "weighted sum": (
        "classification",
        {
            "class_names": ["a", "b", "c"],
            "loss": [
                {"name": "cross_entropy", "class_weights": [1, 2, 0.5]},
                {"name": "dice", "weight": 0.5},
            ],
        },
    ),
}
ValueAndGradient = tuple[Tensor, Tensor]
"""A value, and its gradient with respect to a scalar that simulates a weight of the network."""


def compute_loss(name: str, images: slice) -> ValueAndGradient:
    """Compute a loss; one image has no label, so ranks have different numbers of valid pixels."""
    kind, options = LOSSES[name]
    task = registry.create("tasks", kind, name, options=options)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(IMAGES, task.channels, *SIZE, generator=generator)
    label = torch.randn(IMAGES, task.value_channels, *SIZE, generator=generator)
    if task.make_empty_label((1, 1)).dtype.kind == "u":
        target = (label.argmax(1) if task.channels > 1 else (label > 1)[:, 0]).byte()
        target[0], target[1, :3] = IGNORE_INDEX, IGNORE_INDEX
    else:
        target = label.abs() + 0.5
        target[0], target[1, :, :3] = torch.nan, torch.nan
        target = complete_targets(find_gates([task]), {name: target})[name]
    return differentiate(
        lambda weight: task.compute_loss(weight * features[images], target[images])
    )


def compute_load_balance(images: slice) -> ValueAndGradient:
    scores = torch.randn(IMAGES, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    routing = ExpertRouting({"a": "x", "b": "x", "c": "x"}, {"one": ("a", "b", "c")})
    return differentiate(
        lambda weight: load_balancing_loss(routing, {"one": (weight * scores[images]).softmax(1)})
    )


def compute_orthogonality(images: slice) -> ValueAndGradient:
    features = torch.randn(IMAGES, 4, *SIZE, generator=torch.Generator().manual_seed(3))
    return differentiate(lambda weight: subspace_orthogonality(weight * features[images], 2))


def normalize_batch(images: slice) -> ValueAndGradient:
    """Apply batch normalization and a loss with a different weight per image.

    With equal weights, the gradients of the batch statistics would be equal on all ranks.
    """
    features = torch.randn(IMAGES, 3, *SIZE, generator=torch.Generator().manual_seed(4))
    norm = nn.Sequential(nn.BatchNorm2d(3))
    if get_world_size() > 1:
        convert_sync_batchnorm(norm)
    importance = torch.arange(1.0, IMAGES + 1)[images].view(-1, 1, 1, 1)
    maps = features[images]

    def compute_mean(weight: Tensor) -> Tensor:
        mean = (importance * norm(weight * maps + maps.exp()).square()).mean()
        means = all_gather_object(float(mean.detach()))
        return mean - mean.detach() + sum(means) / len(means)

    value, gradient = differentiate(compute_mean)
    state = [tensor.flatten().float() for tensor in norm.state_dict().values()]
    return torch.cat([value.flatten(), *state]), gradient


def normalize_batch_fused(images: slice) -> ValueAndGradient:
    """Apply batch normalization by the functions of the CUDA kernels, computed on the CPU."""
    with ExitStack() as patches:
        for kernel in (
            batch_norm_stats,
            batch_norm_gather_stats_with_counts,
            batch_norm_elemt,
            batch_norm_backward_reduce,
            batch_norm_backward_elemt,
        ):
            patches.enter_context(mock.patch.object(torch, kernel.__name__, kernel))
        patches.enter_context(mock.patch.object(sync_batch_norm, "_has_fused_kernels", bool_true))
        return normalize_batch(images)


def bool_true(_: Tensor) -> bool:
    return True


def view(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def batch_norm_stats(features: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(features, (0, 2, 3), correction=0)
    return mean, (variance + eps).rsqrt()


def batch_norm_gather_stats_with_counts(
    _: Tensor,
    means: Tensor,
    inverse_stds: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    share = (counts / counts.sum()).unsqueeze(1)
    mean = (share * means).sum(0)
    variances = inverse_stds**-2 - eps
    variance = (share * (variances + (means - mean) ** 2)).sum(0)
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
    return mean, (variance + eps).rsqrt()


def batch_norm_elemt(
    features: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse_std: Tensor, _: float
) -> Tensor:
    return (features - view(mean)) * view(inverse_std * weight) + view(bias)


def batch_norm_backward_reduce(
    gradient: Tensor, features: Tensor, mean: Tensor, inverse_std: Tensor, *_: object
) -> tuple[Tensor, ...]:
    sum_dy = gradient.sum((0, 2, 3))
    sum_dy_xmu = (gradient * (features - view(mean))).sum((0, 2, 3))
    return sum_dy, sum_dy_xmu, sum_dy_xmu * inverse_std, sum_dy


def batch_norm_backward_elemt(
    gradient: Tensor,
    features: Tensor,
    mean: Tensor,
    inverse_std: Tensor,
    weight: Tensor,
    sum_dy: Tensor,
    sum_dy_xmu: Tensor,
    counts: Tensor,
) -> Tensor:
    assert counts.dtype == torch.int32
    total = int(counts.sum())
    centered = features - view(mean)
    projected = centered * view(sum_dy_xmu / total * inverse_std**2)
    return (gradient - view(sum_dy / total) - projected) * view(inverse_std * weight)


def differentiate(compute: Callable[[Tensor], Tensor]) -> ValueAndGradient:
    """Return a function's value at a scalar, and the mean over ranks of its derivative."""
    weight = torch.tensor(1.3, requires_grad=True)
    value = compute(weight)
    value.backward()
    assert weight.grad is not None
    all_reduce_mean_([weight.grad])
    return value.detach(), weight.grad


def compute_all(images: slice) -> dict[str, ValueAndGradient]:
    others = {
        "load balance": compute_load_balance,
        "orthogonality": compute_orthogonality,
        "norm": normalize_batch,
        "fused norm": normalize_batch_fused,
    }
    return {
        **{name: compute_loss(name, images) for name in LOSSES},
        **{name: compute(images) for name, compute in others.items()},
    }


def run_rank(folder: Path) -> None:
    """Compute everything on every second image."""
    with distributed_session("cpu"):
        torch.save(compute_all(slice(get_rank(), None, 2)), folder / f"{get_rank()}.pt")


def test_values_and_gradients_on_two_ranks_equal_those_of_the_joint_batch(tmp_path: Path) -> None:
    wait_for_both(start_two_ranks(tmp_path, run_rank, tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, (value, gradient) in compute_all(slice(None)).items():
        assert gradient != 0, name
        torch.testing.assert_close(first[name][0], value, rtol=1e-5, atol=1e-6, msg=name)
        torch.testing.assert_close(first[name][1], gradient, rtol=1e-5, atol=1e-6, msg=name)
        assert torch.equal(first[name][0], second[name][0]), name
        assert torch.equal(first[name][1], second[name][1]), name
