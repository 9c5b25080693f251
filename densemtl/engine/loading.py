"""Loading of a trained model from a run folder or a weights file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densemtl import registry
from densemtl.config.experiment import ExperimentConfig, load_saved
from densemtl.config.input_paths import find_weights_file
from densemtl.engine.checkpoint import (
    compute_weights_hash,
    load_state_strict,
    load_weights,
)
from densemtl.factory import build_model, build_tasks
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runtime.execution import ExecutionConfig, make_execution_config
from densemtl.tasks.base import Task


@dataclass(frozen=True)
class TrainedModel:
    """Trained model and its experiment.

    Attributes:
        file: the weights file.
        experiment: the experiment that was saved with the weights, with overrides applied.
        tasks: the tasks that the model predicts and is evaluated on.
        model: the model with its weights, on the device.
        execution: device, autocast type and memory layout of the model.
        weights_hash: hash of the weights.
    """

    file: Path
    experiment: ExperimentConfig
    tasks: list[Task]
    model: MultiTaskModel
    execution: ExecutionConfig
    weights_hash: str


def load_trained_model(
    path: Path,
    overrides: Sequence[str] = (),
    device: str | None = None,
    *,
    trust_custom_code: bool = False,
) -> TrainedModel:
    """Load a run's best weights, or the weights of a file.

    `densemtl.config.saved_settings` lists the saved settings that are ignored.

    Args:
        path: a run folder, or a `.safetensors` file that this project wrote.
        overrides: `key=value` changes to the saved configuration, such as `data.root=/data`.
        device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one.
        trust_custom_code: whether the saved configuration may name custom classes,
            `package.module:Class`, which are imported from packages on this machine.

    Returns:
        The model and everything needed to run and evaluate it.

    Raises:
        CheckpointError: if the weights are missing or corrupt, or do not fit the overrides.
        ConfigError: if an override is invalid, or if the configuration names custom classes
            without `trust_custom_code`.
    """
    file = find_weights_file(path)
    weights = load_weights(file)
    with registry.custom_code(trust_custom_code):
        experiment = load_saved(
            weights.config_yaml,
            file,
            overrides,
            trust_custom_code=trust_custom_code,
            restrict=True,
        )
        tasks = build_tasks(experiment)  # reads further names from the files of the dataset
        model = build_model(experiment, tasks, pretrained=False)
    load_state_strict(model, weights.tensors, file)
    execution = make_execution_config(experiment.train, device)
    execution.to_device(model)
    return TrainedModel(file, experiment, tasks, model, execution, compute_weights_hash(model))
