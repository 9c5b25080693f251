"""A diagnosis as files: tables, pictures of the worst images with their errors, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densemtl.io.atomic import replacing, write_json
from densemtl.factory import build_dataset
from densemtl.ops.colormaps import ramp
from densemtl.data.base import DenseDataset, Split
from densemtl.io.writers import write_picture
from densemtl.analysis.failure_analysis import Diagnosis
from densemtl.inference.predictor import Predictor
from densemtl.engine.loading import Loaded
from densemtl.metrics.calibration import Reliability
from densemtl.results.results import finite
from densemtl.results.tables import csv_table
from densemtl.tasks.base import Task
from densemtl.visualization.panels import Picture, contact_sheet, side_by_side

HIGHEST = 95
"""Percentile of an image's errors at which the colours of its error map end."""


def write_diagnosis(
    folder: Path, diagnosis: Diagnosis, loaded: Loaded, split: Split, worst: int
) -> None:
    """Write diagnosis.json, images.csv, classes_TASK.csv, worst_TASK.png and calibration.png.

    Args:
        folder: made if it is not there.
        diagnosis: of the split.
        loaded: the network, to draw its predictions again.
        split: of its dataset.
        worst: pictures a task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "diagnosis.json", _record(diagnosis))
    _write_images(folder / "images.csv", diagnosis.images)
    dataset = build_dataset(loaded.experiment, split)
    for task in loaded.tasks:
        classes = diagnosis.classes(task.name)
        if classes:
            rows = [["class", "IoU"], *([name, f"{iou:.2f}"] for name, iou in classes.items())]
            _write_csv(folder / f"classes_{task.name}.csv", rows)
        names = diagnosis.worst(task, worst)
        if names:
            picture = _draw_worst(task, names, diagnosis, loaded, dataset)
            write_picture(folder / f"worst_{task.name}.png", picture)
    if diagnosis.reliability:
        draw_calibration(folder / "calibration.png", diagnosis.reliability)


def _record(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "scores": {task: finite(values) for task, values in diagnosis.scores.items()},
        "calibration": {
            task: {**finite(each.scores()), "curve": [_listed(part) for part in each.curve()]}
            for task, each in diagnosis.reliability.items()
        },
    }


def _listed(values: Any) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def _write_images(file: Path, images: Mapping[str, Mapping[str, float]]) -> None:
    names = dict.fromkeys(name for scores in images.values() for name in scores)
    rows = [
        [name, *(f"{scores[name]:.6g}" if name in scores else "" for scores in images.values())]
        for name in names
    ]
    _write_csv(file, [["image", *images], *rows])


def _write_csv(file: Path, rows: Sequence[Sequence[str]]) -> None:
    with replacing(file) as draft:
        draft.write_text(csv_table(rows), encoding="utf-8", newline="")


def _draw_worst(
    task: Task, names: Sequence[str], diagnosis: Diagnosis, loaded: Loaded, dataset: DenseDataset
) -> Picture:
    predictor, metric = Predictor.of(loaded), task.selection(loaded.experiment.protocol)
    index = {name: number for number, name in enumerate(dataset.ids)}
    rows = []
    for name in names:
        sample = dataset[index[name]]
        target = sample.targets[task.name]
        prediction = predictor(sample.image)[task.name]
        errors = task.errors(prediction, target)
        most = max(float(np.nanpercentile(errors, HIGHEST)), 1e-6)
        titled = {
            f"{name}: {metric} {diagnosis.images[task.name][name]:.4g}": sample.image,
            task.name: task.colour(prediction),
            f"{task.name}, label": task.colour(target),
            f"error, dark: {most:.3g} {task.error_unit}": ramp(errors, 0, most),
        }
        rows.append(side_by_side(titled))
    return contact_sheet(rows)


def draw_calibration(file: Path, reliability: Mapping[str, Reliability]) -> None:
    """Write a picture: share of positives above the mean probability, bin by bin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(reliability), 3.6), layout="constrained")
    axes = figure.subplots(1, len(reliability), squeeze=False)[0]
    for axis, (task, each) in zip(axes, reliability.items(), strict=True):
        told, true, share = each.curve()
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        axis.bar(told.nan_to_num(), share, width=0.03, color="lightgrey", label="pixels")
        axis.plot(told, true, marker="o", markersize=3, label="positives")
        axis.set(title=f"{task}: ECE {each.scores()['ECE']:.2f} %", xlabel="probability")
        axis.legend(fontsize=7)
    with replacing(file) as draft:
        figure.savefig(draft, dpi=110)
