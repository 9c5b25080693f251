"""Stand-in for a shipped model: a tiny network with random weights, of the same six tasks."""

from __future__ import annotations

from pathlib import Path

import densemtl
from densemtl.config import yaml_loader
from densemtl.config.experiment import validate_experiment
from densemtl.engine.weights_file import save_weights
from densemtl.factory import build_model, build_tasks, save_task_defaults
from tests.helpers.experiments import TINY_CONFIG

CLOTHING = ["background", "hair", "skin", "upper", "lower", "dress", "shoe", "bag"]

OVERRIDES = (
    "tasks=[semseg, depth, normals, edge, saliency, clothing]",
    """data={name: mixed, sets: {
        nyud: {name: nyud, root: /home/alice/nyud, tasks: [semseg, depth, normals]},
        bsds: {name: folder, root: /home/alice/bsds, images: [/home/alice/bsds/images],
               labels: {edge: {files: /home/alice/edges, threshold: 0.2}}},
        ecssd: {name: folder, root: ~/ecssd, images: images, labels: {saliency: {files: masks}}},
        ccp: {name: folder, root: /home/alice/ccp, images: images,
              labels: {clothing: {files: masks, kind: semseg, class_names: ["""
    + ", ".join(CLOTHING)
    + "]}}}}}",
    "loader.cache_dir=/home/alice/cache",
    "head.width=16",
)


def write_stand_in(folder: Path, work: Path, notes: str = "") -> Path:
    """Publish the stand-in in a folder, by way of a weights file in `work`; needs no data."""
    merged = yaml_loader.apply_overrides(TINY_CONFIG, OVERRIDES, "stand-in")
    experiment = save_task_defaults(validate_experiment(merged))
    model = build_model(experiment, build_tasks(experiment), pretrained=False)
    save_weights(work / "w.safetensors", model, experiment.to_yaml())
    return densemtl.save_pretrained(work / "w.safetensors", folder, half=True, notes=notes)
