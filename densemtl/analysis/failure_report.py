"""Files of a diagnosis: tables, figures of the worst images and their errors, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.analysis.failure_analysis import Diagnosis
from densemtl.data.base import DenseDataset
from densemtl.engine.loading import TrainedModel
from densemtl.factory import build_dataset
from densemtl.inference.predictor import Predictor
from densemtl.io.atomic import atomic_write, write_json
from densemtl.io.writers import write_image
from densemtl.metrics.calibration_error import CalibrationError
from densemtl.ops.colormaps import apply_viridis_colormap
from densemtl.results.results import nan_to_none
from densemtl.results.tables import csv_table
from densemtl.tasks.base import Task
from densemtl.types import RGBImage, Split
from densemtl.visualization.color_range import describe_limits, fit_color_range
from densemtl.visualization.image_display import to_rgb_image
from densemtl.visualization.panels import stack_horizontally, stack_vertically

MAX_ERROR_PERCENTILE = 95
"""Percentile of the errors of an image at which the color scale of its error map ends."""


def write_diagnosis(
    folder: Path, diagnosis: Diagnosis, trained: TrainedModel, split: Split, num_worst: int
) -> None:
    """Write diagnosis.json, images.csv, classes_TASK.csv, worst_TASK.png and calibration.png.

    Args:
        folder: output folder, created if it does not exist.
        diagnosis: result of `diagnose` on the split.
        trained: the model, whose predictions of the worst images are computed again.
        split: split of the dataset that was diagnosed.
        num_worst: number of images per task in worst_TASK.png.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "diagnosis.json", _to_dict(diagnosis))
    _write_image_scores(folder / "images.csv", diagnosis.image_scores)
    dataset = build_dataset(trained.experiment, split)
    for task in trained.tasks:
        classes = diagnosis.get_class_iou(task.name)
        if classes:
            rows = [["class", "IoU"], *([name, f"{iou:.2f}"] for name, iou in classes.items())]
            _write_csv(folder / f"classes_{task.name}.csv", rows)
        names = diagnosis.list_worst_images(task, num_worst)
        if names:
            picture = _draw_worst(task, names, diagnosis, trained, dataset)
            write_image(folder / f"worst_{task.name}.png", picture)
    if diagnosis.calibration:
        plot_calibration(folder / "calibration.png", diagnosis.calibration)


def _to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "scores": {task: nan_to_none(values) for task, values in diagnosis.scores.items()},
        "calibration": {
            task: {
                **nan_to_none(metric.compute_dict()),
                "curve": [_to_list(part) for part in metric.compute_curve()],
            }
            for task, metric in diagnosis.calibration.items()
        },
    }


def _to_list(values: Any) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def _write_image_scores(file: Path, image_scores: Mapping[str, Mapping[str, float]]) -> None:
    names = dict.fromkeys(name for scores in image_scores.values() for name in scores)
    rows = [
        [
            name,
            *(f"{scores[name]:.6g}" if name in scores else "" for scores in image_scores.values()),
        ]
        for name in names
    ]
    _write_csv(file, [["image", *image_scores], *rows])


def _write_csv(file: Path, rows: Sequence[Sequence[str]]) -> None:
    with atomic_write(file) as tmp_path:
        tmp_path.write_text(csv_table(rows), encoding="utf-8", newline="")


def _draw_worst(
    task: Task,
    names: Sequence[str],
    diagnosis: Diagnosis,
    trained: TrainedModel,
    dataset: DenseDataset,
) -> RGBImage:
    predictor, metric = (
        Predictor.from_trained(trained),
        task.get_selection_metric(trained.experiment.protocol),
    )
    index = {name: number for number, name in enumerate(dataset.ids)}
    rows = []
    for name in names:
        sample = dataset[index[name]]
        target = sample.targets[task.name]
        prediction = predictor.predict_sample(sample.image)[task.name]
        errors = task.compute_error_map(prediction, target)
        shown = fit_color_range(task, prediction, target)
        most = max(float(np.nanpercentile(errors, MAX_ERROR_PERCENTILE)), 1e-6)
        image = to_rgb_image(sample.image)
        titled = {
            f"{name}: {metric} {diagnosis.image_scores[task.name][name]:.4g}": image,
            f"{task.name}{_describe_colors(shown, target)}": shown.colorize(prediction),
            f"{task.name}, label": shown.colorize(target),
            f"error, dark: {most:.3g} {task.error_unit}": apply_viridis_colormap(errors, 0, most),
        }
        rows.append(stack_horizontally(titled))
    return stack_vertically(rows)


def _describe_colors(task: Task, target: NDArray[np.generic]) -> str:
    """Return the range of colors for the title of a prediction; empty without a range."""
    color_range = task.compute_color_range(target)
    return f", {' to '.join(describe_limits(task, color_range))}" if color_range else ""


def plot_calibration(file: Path, calibration: Mapping[str, CalibrationError]) -> None:
    """Write a reliability diagram with one panel per task.

    A panel shows, for each bin of probabilities, the fraction of positive pixels over the mean
    probability, and the fraction of all pixels as bars.

    Args:
        file: image file, written atomically.
        calibration: {task: calibration error that was updated}.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(calibration), 3.6), layout="constrained")
    axes = figure.subplots(1, len(calibration), squeeze=False)[0]
    for axis, (task, metric) in zip(axes, calibration.items(), strict=True):
        predicted, true, share = metric.compute_curve()
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        axis.bar(predicted.nan_to_num(), share, width=0.03, color="lightgrey", label="pixels")
        axis.plot(predicted, true, marker="o", markersize=3, label="positives")
        axis.set(title=f"{task}: ECE {metric.compute_dict()['ECE']:.2f} %", xlabel="probability")
        axis.legend(fontsize=7)
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=110)
