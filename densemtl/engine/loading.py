"""From a run's folder or a weights file back to a working model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densemtl.factory import build_model, build_tasks
from densemtl.config.experiment import Experiment, load_saved
from densemtl.engine.checkpoint import apply_weights, load_weights, weights_file, weights_hash
from densemtl.runtime.execution import Precision, make_precision
from densemtl.models.multi_task_model import DenseModel
from densemtl.tasks.base import Task


@dataclass(frozen=True)
class Loaded:
    """A trained model and the experiment that made it.

    Attributes:
        file: the weights.
        experiment: as saved with them, with the overrides given.
        tasks: what the model predicts.
        model: with the weights, on the device.
        precision: where and how it runs.
        weights: their hash.
    """

    file: Path
    experiment: Experiment
    tasks: list[Task]
    model: DenseModel
    precision: Precision
    weights: str


def load(path: Path, overrides: Sequence[str] = (), device: str | None = None) -> Loaded:
    """Load a run's best weights, or the weights of a file.

    Args:
        path: a run's folder, or a `.safetensors` file that this project wrote.
        overrides: `key=value` changes to the saved configuration, such as data.root=...
        device: "cpu", "cuda" ..; None for a GPU where there is one.

    Raises:
        CheckpointError: missing, corrupt, or the overrides ask for another model.
        ConfigError: a wrong override.
    """
    file = weights_file(path)
    weights = load_weights(file)
    experiment = load_saved(weights.config, file, overrides)
    tasks = build_tasks(experiment)
    model = build_model(experiment, tasks, pretrained=False)
    apply_weights(model, weights.tensors, file)
    precision = make_precision(experiment.train, device)
    precision.place(model)
    return Loaded(file, experiment, tasks, model, precision, weights_hash(model))
