"""Shrinking ranks of adapters: random prefixes, importance, kept ranks, runs and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import densemtl
from densemtl.adapters.layers import add_adapter, merge_layer
from densemtl.adapters.low_rank import DoraAdapter, LowRankAdapter
from densemtl.adapters.rank_selection import RankSelection
from densemtl.engine.adapter_ranks import (
    compute_mean_rank,
    list_shrinking,
    measure_importance,
    shrink_ranks,
)
from densemtl.engine.weights_file import load_weights
from densemtl.errors import ConfigError
from densemtl.factory import build_balancer, build_model, build_tasks
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import _distribute_model
from tests.helpers.adapter_cases import randomize_adapters
from tests.helpers.experiments import make_tiny_experiment

SHRINK = "backbone={name: test_vit, pretrained: false, adapters: {kind: dora, rank: 6}}"
OPTIONS = [SHRINK, "backbone.adapters.shrink={keep: 0.7, decay: 0.5}"]


def select(kept: list[bool], keep: float = 0.95) -> RankSelection:
    ranks = RankSelection(len(kept), keep=keep, decay=0.9)
    ranks.kept.copy_(torch.tensor(kept))
    return ranks


def test_training_uses_each_prefix_of_the_kept_ranks_equally_often() -> None:
    ranks = select([True, False, True, True, False])
    torch.manual_seed(0)
    counts: dict[tuple[bool, ...], int] = {}
    for _ in range(3000):
        used = tuple(ranks().tolist())
        counts[used] = counts.get(used, 0) + 1
    prefixes = [
        (True, False, False, False, False),
        (True, False, True, False, False),
        (True, False, True, True, False),
    ]
    assert sorted(counts) == prefixes
    assert all(900 < count < 1100 for count in counts.values())
    assert torch.equal(ranks.eval()(), ranks.kept)


@pytest.mark.parametrize("kind", [LowRankAdapter, DoraAdapter])
@pytest.mark.parametrize("make", [lambda: nn.Linear(5, 4), lambda: nn.Conv2d(5, 4, 3, padding=1)])
@torch.no_grad()
def test_kept_ranks_equal_an_adapter_of_a_smaller_rank(kind: Any, make: Any) -> None:
    torch.manual_seed(0)
    plain, rows = make(), [0, 2, 3]
    ranks = select([True, False, True, True])
    adapted = randomize_adapters(add_adapter(plain, kind(plain, 4, scale=2.0, ranks=ranks))).eval()
    small = add_adapter(plain, kind(plain, 3, scale=2.0)).eval()
    small.adapter.down.copy_(adapted.adapter.down[rows])
    small.adapter.up.copy_(adapted.adapter.up[:, rows])
    if kind is DoraAdapter:
        small.adapter.gain.copy_(adapted.adapter.gain)
    x = torch.randn(2, 5, 6, 5).movedim(1, 3 if isinstance(plain, nn.Linear) else 1)
    torch.testing.assert_close(adapted(x), small(x))
    torch.testing.assert_close(merge_layer(adapted)(x), small(x), rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)  # a prefix of one rank or more, in training
    adapted.train()
    outputs = [adapted(x) for _ in range(40)]
    for length in (1, 2, 3):
        shape = (3, *[1] * (adapted.adapter.down.ndim - 1))
        mask = (torch.arange(3) < length).view(shape)
        small.adapter.down.copy_(adapted.adapter.down[rows] * mask)
        expected = small(x)
        assert any(torch.allclose(each, expected, atol=1e-5) for each in outputs)


def test_importance_is_the_moving_average_of_products_with_gradients() -> None:
    torch.manual_seed(0)
    ranks = RankSelection(3, keep=0.9, decay=0.75)
    down, up = (nn.Parameter(torch.randn(*shape)) for shape in ((3, 5, 2), (4, 3)))
    expected = [0.0, 0.0, 0.0]
    for _ in range(2):
        down.grad, up.grad = torch.randn(3, 5, 2), torch.randn(4, 3)
        ranks.update(down, up)
        for i in range(3):
            row, column = down[i].flatten().tolist(), up[:, i].tolist()
            row_grad, column_grad = down.grad[i].flatten().tolist(), up.grad[:, i].tolist()
            first = abs(sum(a * b for a, b in zip(row, row_grad, strict=True)))
            second = abs(sum(a * b for a, b in zip(column, column_grad, strict=True)))
            expected[i] = 0.75 * expected[i] + 0.25 * (first + second) / 2
    torch.testing.assert_close(ranks.importance, torch.tensor(expected))
    down.grad = torch.full_like(down, torch.inf)
    ranks.update(down, up)
    torch.testing.assert_close(ranks.importance, torch.tensor(expected))


@pytest.mark.parametrize(
    ("keep", "importance", "kept"),
    [
        (0.85, [5.0, 1.0, 3.0, 1.0], [1, 1, 1, 0]),
        (0.75, [5.0, 1.0, 3.0, 1.0], [1, 0, 1, 0]),
        (0.01, [1.0, 1.0, 2.0, 1.0], [0, 0, 1, 0]),
        (1.0, [1.0, 0.0, 2.0, 1.0], [1, 0, 1, 1]),
        (0.5, [0.0, 0.0, 0.0, 0.0], [1, 1, 1, 1]),
    ],
)
def test_fewest_ranks_with_the_share_are_kept(
    keep: float, importance: list[float], kept: list[int]
) -> None:
    ranks = select([True] * 4, keep)
    ranks.importance.copy_(torch.tensor(importance))
    ranks.shrink()
    assert ranks.kept.int().tolist() == kept
    assert ranks.importance.tolist() == [k * v for k, v in zip(kept, importance, strict=True)]


def test_removed_ranks_do_not_return() -> None:
    ranks = select([False, True, True], 1.0)
    ranks.importance.copy_(torch.tensor([9.0, 1.0, 2.0]))
    ranks.shrink()
    assert ranks.kept.tolist() == [False, True, True]


def test_removed_ranks_have_no_gradient() -> None:
    layer = nn.Linear(5, 4)
    ranks = select([True, False, True])
    adapted = randomize_adapters(add_adapter(layer, LowRankAdapter(layer, 3, ranks=ranks)))
    adapted.eval()(torch.randn(7, 5)).square().sum().backward()
    for grad in (adapted.adapter.down.grad, adapted.adapter.up.grad.T):
        assert grad.flatten(1).any(1).tolist() == [True, False, True]


def test_optimizer_measures_the_importance_before_it_changes_the_parameters() -> None:
    adapters = {"rank": 3, "shrink": {"keep": 0.5, "decay": 0}}
    backbone = {"name": "test_vit", "adapters": adapters}
    model = randomize_adapters(
        densemtl.create_model("hard_sharing", backbone=backbone, head="linear", tasks=["depth"])
    )
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    measure_importance(model, optimizer)
    model.eval()(torch.zeros(1, 3, 32, 32)).logits["depth"].square().mean().backward()
    adapter, ranks = list_shrinking(model)[0]
    of_rows = (adapter.down * adapter.down.grad).sum(1).abs()
    expected = (of_rows + (adapter.up * adapter.up.grad).sum(0).abs()) / 2
    optimizer.step()
    torch.testing.assert_close(ranks.importance, expected.detach())
    assert compute_mean_rank(model) == {"adapters/mean_rank": 3}
    shrink_ranks(model)
    assert compute_mean_rank(model)["adapters/mean_rank"] < 3


def read_ranks(folder: Path) -> dict[str, Any]:
    return load_weights(folder / "last" / "model.safetensors").tensors


@pytest.mark.parametrize("overrides", [(), ("decoder={name: task_adapters, shrink: {}}",)])
def test_resumed_run_shrinks_like_an_uninterrupted_one(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_experiment(make_tiny_experiment(*OPTIONS, *overrides), whole, "cpu")
    train_experiment(make_tiny_experiment(*OPTIONS, *overrides), parts, "cpu", max_steps=3)
    train_experiment(make_tiny_experiment(*OPTIONS, *overrides), parts, "cpu")
    first, second = read_ranks(whole), read_ranks(parts)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    kept = [value for name, value in first.items() if name.endswith(".ranks.kept")]
    assert 0 < sum(int(each.sum()) for each in kept) < sum(each.numel() for each in kept)
    logged = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    means = [line["adapters/mean_rank"] for line in logged if "adapters/mean_rank" in line]
    assert means[-1] == pytest.approx(sum(int(each.sum()) for each in kept) / len(kept))


def test_sharded_training_is_an_error() -> None:
    experiment = make_tiny_experiment(*OPTIONS, "train.fsdp=true")
    tasks = build_tasks(experiment)
    model, balancer = build_model(experiment, tasks), build_balancer(experiment, tasks)
    message = "train.fsdp: a sharded model does not support adapters with shrink; remove it"
    with pytest.raises(ConfigError, match=message):
        _distribute_model(model, None, experiment, balancer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "svd", "shrink": {}}, "kind svd has no shrink; remove it"),
        ({"shrink": {"keep": 0}}, "shrink.keep: Input should be greater than 0"),
        ({"shrink": {"keep": 1.1}}, "shrink.keep: Input should be less than or equal to 1"),
        ({"shrink": {"decay": 1}}, "shrink.decay: Input should be less than 1"),
        ({"shrink": {"kep": 1}}, "shrink.kep: unknown key, did you mean 'keep'"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        densemtl.create_model(
            "hard_sharing", backbone={"name": "test_vit", "adapters": options}, tasks=["depth"]
        )
