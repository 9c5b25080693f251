"""Two processes that share the images of a split arrive at the values of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.helpers.two_ranks import both, start

from densemtl import registry
from densemtl.distributed.collectives import rank, together
from densemtl.types import VOID

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
    tasks = [registry.make("tasks", name, name, options=KINDS[name]) for name in KINDS]
    return {f"{task.name} {p}": score(task, own, p) for task in tasks for p in PROTOCOLS}


def score(task, own, protocol) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, task.channels, 12, 15, generator=generator)
    label = torch.randn(IMAGES, task.channels, 12, 15, generator=generator)
    if task.void((1, 1)).dtype.kind == "u":
        target = (label.argmax(1) if task.channels > 1 else (label > 1)[:, 0]).byte()
        target[0] = VOID
    else:
        target = label.abs() + 0.5
        target[0] = torch.nan
    metric = task.final_metric(protocol) or task.metric(protocol)
    metric.update(task.decode(logits)[own], target[own])
    return metric.scores()


def on_a_rank(folder: Path) -> None:
    """What one of two ranks arrives at."""
    with together("cpu"):
        (folder / f"{rank()}.json").write_text(json.dumps(scores(SHARE[rank()])))


def test_two_ranks_arrive_at_the_values_of_one_process(tmp_path: Path) -> None:
    both(start(tmp_path, on_a_rank, tmp_path))
    first, other = (json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2))
    alone = scores(slice(None))
    assert first.keys() == other.keys() == alone.keys()
    for name, values in alone.items():
        assert first[name] == other[name] == pytest.approx(values, rel=1e-9), name
