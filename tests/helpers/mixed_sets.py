"""Tiny mixtures of datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from densemtl.config.experiment import ExperimentConfig
from tests.helpers.experiments import make_tiny_experiment

ROOMS = {
    "rooms": {"tasks": ["semseg"], "train_images": 6, "val_images": 2},
    "depths": {"tasks": ["depth"], "train_images": 4, "val_images": 2},
    "others": {"tasks": {"semseg": "things"}, "train_images": 2, "val_images": 2},
}
"""Three synthetic sets with labels of semseg, depth, and of semseg under another name."""

MIXED_TASKS = ["semseg", "depth", "things"]


def make_sets(**changes: Any) -> dict[str, dict[str, Any]]:
    """Return `ROOMS` as the option `sets`, with changed options of some sets."""
    common = {"name": "synthetic", "size": [32, 40]}
    return {
        name: {**common, "seed": number, **options, **changes.get(name, {})}
        for number, (name, options) in enumerate(ROOMS.items())
    }


def make_data(sets: Any = None, **options: Any) -> dict[str, Any]:
    """Return a section `data` with several sets."""
    return {"name": "mixed", "sets": make_sets() if sets is None else sets, **options}


def make_mixed_experiment(
    *overrides: str, data: dict[str, Any] | None = None, tasks: Sequence[str] = MIXED_TASKS
) -> ExperimentConfig:
    """Return the tiny experiment with three tasks on three sets."""
    section = yaml.safe_dump(data or make_data(), default_flow_style=True, width=10**6)
    return make_tiny_experiment(f"data={section.strip()}", f"tasks={list(tasks)}", *overrides)


def write_folder_set(root: Path, task: str, label: Any, count: int = 4) -> dict[str, Any]:
    """Write a dataset `folder` with one binary label map for every image; return its options."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(len(task))
    for kind in ("images", task):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        image = rng.integers(0, 256, (32, 40, 3)).astype(np.uint8)
        cv2.imwrite(str(root / "images" / f"{number}.png"), image)
        cv2.imwrite(str(root / task / f"{number}.png"), label)
    return {
        "name": "folder",
        "root": str(root),
        "images": "images",
        "labels": {task: {"files": task, "kind": "binary"}},
        "val_fraction": 0.5,
    }
