"""Metrics on two ranks, compared with one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from densemtl import registry
from densemtl.distributed.collectives import get_rank
from densemtl.distributed.session import distributed_session
from densemtl.types import IGNORE_INDEX
from tests.helpers.two_ranks import start_two_ranks, wait_for_both

IMAGES, SHARE = 5, (slice(0, 1), slice(1, 5))
"""Number of images, and the images of each rank. The first image has no label."""

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


def scores(images: slice) -> dict[str, dict[str, float]]:
    """Score some of the images; with torch.distributed the scores include all ranks."""
    tasks = [registry.create("tasks", name, name, options=KINDS[name]) for name in KINDS]
    return {f"{task.name} {p}": score(task, images, p) for task in tasks for p in PROTOCOLS}


def score(task, images, protocol) -> dict[str, float]:
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
    metric.update(task.decode(logits)[images], target[images])
    return metric.compute_dict()


def on_a_rank(folder: Path) -> None:
    """Write the scores of one of two ranks to a file."""
    with distributed_session("cpu"):
        (folder / f"{get_rank()}.json").write_text(json.dumps(scores(SHARE[get_rank()])))


def test_two_ranks_compute_the_values_of_one_process(tmp_path: Path) -> None:
    wait_for_both(start_two_ranks(tmp_path, on_a_rank, tmp_path))
    rank0, rank1 = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    expected = scores(slice(None))
    assert rank0.keys() == rank1.keys() == expected.keys()
    for name, values in expected.items():
        assert rank0[name] == rank1[name] == pytest.approx(values, rel=1e-9), name
