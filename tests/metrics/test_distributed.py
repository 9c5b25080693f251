"""Two processes that share the images of a split arrive at the values of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from densemtl import registry
from densemtl.distributed.collectives import distributed_session, get_rank
from densemtl.types import IGNORE_INDEX
from tests.helpers.two_ranks import start_two_ranks, wait_for_both

IMAGES, SHARE = 5, (slice(0, 1), slice(1, 5))
"""So many images, and those that each rank takes: of unequal number, the first without a label."""

KINDS = {
    "semseg": {"class_names": ["a", "b", "c"]},
    "depth": {},
    "normals": {},
    "edge": {"max_distance": 0.1},
    "binary": {},
    "saliency": {},
    "regression": {"channels": 2},
}
PROTOCOLS = ("survey", "modern")


def scores(own: slice) -> dict[str, dict[str, float]]:
    """Of some of the images; under torch.distributed of those of all ranks."""
    tasks = [registry.create("tasks", name, name, options=KINDS[name]) for name in KINDS]
    return {f"{task.name} {p}": score(task, own, p) for task in tasks for p in PROTOCOLS}


def score(task, own, protocol) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, task.channels, 12, 15, generator=generator)
    label = torch.randn(IMAGES, task.channels, 12, 15, generator=generator)
    if task.make_empty_label((1, 1)).dtype.kind == "u":
        target = (label.argmax(1) if task.channels > 1 else (label > 1)[:, 0]).byte()
        target[0] = IGNORE_INDEX
    else:
        target = label.abs() + 0.5
        target[0] = torch.nan
    metric = task.make_final_metric(protocol) or task.make_metric(protocol)
    metric.update(task.decode(logits)[own], target[own])
    return metric.compute_dict()


def on_a_rank(folder: Path) -> None:
    """What one of two ranks arrives at."""
    with distributed_session("cpu"):
        (folder / f"{get_rank()}.json").write_text(json.dumps(scores(SHARE[get_rank()])))


def test_two_ranks_arrive_at_the_values_of_one_process(tmp_path: Path) -> None:
    wait_for_both(start_two_ranks(tmp_path, on_a_rank, tmp_path))
    first, other = (json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2))
    alone = scores(slice(None))
    assert first.keys() == other.keys() == alone.keys()
    for name, values in alone.items():
        assert first[name] == other[name] == pytest.approx(values, rel=1e-9), name
