"""From a run's folder or a weights file back to a working model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densemtl.config.experiment import ExperimentConfig, load_saved
from densemtl.engine.checkpoint import (
    compute_weights_hash,
    find_weights_file,
    load_state_strict,
    load_weights,
)
from densemtl.factory import build_model, build_tasks
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runtime.execution import ExecutionConfig, make_execution_config
from densemtl.tasks.base import Task


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and the experiment that made it.

    Attributes:
        file: the weights.
        experiment: as saved with them, with the overrides given.
        tasks: what the model predicts.
        model: with the weights, on the device.
        execution: where and how it runs.
        weights_hash: their hash.
    """

    file: Path
    experiment: ExperimentConfig
    tasks: list[Task]
    model: MultiTaskModel
    execution: ExecutionConfig
    weights_hash: str


def load_trained_model(
    path: Path, overrides: Sequence[str] = (), device: str | None = None
) -> TrainedModel:
    """Load a run's best weights, or the weights of a file.

    Args:
        path: a run's folder, or a `.safetensors` file that this project wrote.
        overrides: `key=value` changes to the saved configuration, such as data.root=...
        device: "cpu", "cuda" ..; None for a GPU where there is one.

    Raises:
        CheckpointError: missing, corrupt, or the overrides ask for another model.
        ConfigError: a wrong override.
    """
    file = find_weights_file(path)
    weights = load_weights(file)
    experiment = load_saved(weights.config_yaml, file, overrides)
    tasks = build_tasks(experiment)
    model = build_model(experiment, tasks, pretrained=False)
    load_state_strict(model, weights.tensors, file)
    precision = make_execution_config(experiment.train, device)
    precision.to_device(model)
    return TrainedModel(file, experiment, tasks, model, precision, compute_weights_hash(model))
