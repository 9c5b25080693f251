"""Tiny experiments on synthetic rooms for tests that train."""

from __future__ import annotations

from pathlib import Path

from densemtl.config import yaml_loader
from densemtl.config.experiment import ExperimentConfig, validate_experiment

TINY_CONFIG = {
    "tasks": ["semseg", "depth"],
    "data": {"name": "synthetic", "size": [32, 40], "train_images": 8, "val_images": 4},
    "input": {"size": [32, 40]},
    "backbone": {"name": "test_resnet", "pretrained": False},
    "decoder": {"name": "hard_sharing"},
    "head": {"name": "fpn", "width": 8},
    "loader": {"batch_size": 2, "eval_batch_size": 2, "num_workers": 0},
    "optim": {"name": "adamw", "lr": 1e-3},
    "train": {
        "epochs": 2,
        "eval_every": 1,
        "visualize_every": 0,
        "num_vis_images": 1,
        "log_every_steps": 1,
        "amp": "none",
        "channels_last": True,
    },
}
"""Two epochs of four steps; they take about one second."""


def make_tiny_experiment(*overrides: str) -> ExperimentConfig:
    """Return the tiny experiment with `key=value` overrides."""
    return validate_experiment(yaml_loader.apply_overrides(TINY_CONFIG, overrides, "tiny"))


def write_tiny_config(folder: Path) -> Path:
    """Write the tiny experiment as a configuration file and return its path."""
    import yaml

    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY_CONFIG), encoding="utf-8")
    return file
