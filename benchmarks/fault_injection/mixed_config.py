"""Configuration with several datasets, a teacher of their missing labels, and cached features."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from densemtl.config.experiment import validate_experiment
from densemtl.config.yaml_loader import apply_overrides
from densemtl.engine.weights_file import save_weights
from densemtl.factory import build_model, build_tasks
from tests.helpers.experiments import TINY_CONFIG
from tests.helpers.mixed_sets import make_sets, write_folder_set

TASKS = ["semseg", "depth", "water"]


def write_mixed_config(folder: Path) -> Path:
    """Write a configuration with labels of one task per set; an untrained network fills the rest.

    Args:
        folder: folder of the configuration, the images, the teacher and the caches.

    Returns:
        The configuration file.
    """
    water = (np.arange(32 * 40).reshape(32, 40) % 7 < 3).astype(np.uint8) * 255
    rooms = {name: options for name, options in make_sets().items() if name != "others"}
    sets = {**rooms, "water": write_folder_set(folder / "water", "water", water, count=8)}
    config: dict[str, Any] = {
        **TINY_CONFIG,
        "tasks": TASKS,
        "data": {"name": "mixed", "sets": sets},
    }
    run = _write_teacher(folder / "teacher", config)
    config["teachers"] = {
        "semseg": {"run": run, "threshold": 0.07},  # labels two thirds of the pixels of 15 classes
        "depth": run,
        "water": run,
    }
    file = folder / "mixed.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def _write_teacher(folder: Path, config: dict[str, Any]) -> str:
    experiment = validate_experiment(apply_overrides(config, [], "teacher"))
    torch.manual_seed(1)
    model = build_model(experiment, build_tasks(experiment))
    folder.mkdir()
    save_weights(folder / "best.safetensors", model, experiment.to_yaml())
    return str(folder)


def list_cache_overrides(folder: Path) -> tuple[str, ...]:
    """List the overrides that cache labels of teachers and features in a folder.

    Args:
        folder: folder of the caches.

    Returns:
        Changes `key=value` of the configuration.
    """
    cache = ("loader.cache=features", f"loader.cache_dir={folder}")
    return (*cache, "backbone.freeze=all", "augment.num_views=2")


def remove_some(folder: Path, rng: random.Random) -> None:
    """Remove random files of the caches, which the next start has to compute again.

    Args:
        folder: folder of the caches.
        rng: random generator.
    """
    for file in sorted(folder.rglob("*.npy")):
        if rng.random() < 0.3:
            file.unlink()
