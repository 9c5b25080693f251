"""Loading of a trained model from a run folder or a weights file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from densemtl import registry
from densemtl.config.experiment import (
    ExperimentConfig,
    load_saved,
    parse_saved_experiment,
)
from densemtl.config.input_paths import find_weights_file
from densemtl.engine.task_subset import (
    LoadedExperiment,
    LoadFn,
    check_channels,
    find_class_differences,
    load_subset,
)
from densemtl.engine.weights_file import (
    SavedWeights,
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
        unlabeled_tasks: names of the tasks that the model predicts, but the dataset has no labels
            of; `experiment` and `tasks` lack them.
        warnings: lines about classes whose names differ from those of the training.
    """

    file: Path
    experiment: ExperimentConfig
    tasks: list[Task]
    model: MultiTaskModel
    execution: ExecutionConfig
    weights_hash: str
    unlabeled_tasks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load_trained_model(
    path: Path,
    overrides: Sequence[str] = (),
    device: str | None = None,
    *,
    trust_custom_code: bool = False,
    subset: bool = False,
) -> TrainedModel:
    """Load a run's best weights, or the weights of a file.

    `densemtl.config.saved_settings` lists the saved settings that are ignored.

    Args:
        path: a run folder, a `.safetensors` file that this project wrote, or the name of a shipped
            model.
        overrides: `key=value` changes to the saved configuration, such as `data.root=/data`.
        device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one.
        trust_custom_code: whether the saved configuration may name custom classes,
            `package.module:Class`, which are imported from packages on this machine.
        subset: whether overrides may list some of the tasks, or a dataset that has labels of some;
            the model predicts all tasks, but `experiment` and `tasks` of the result have only
            these.

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

        def load(overrides: Sequence[str]) -> ExperimentConfig:
            return load_saved(
                weights.config_yaml,
                file,
                overrides,
                trust_custom_code=trust_custom_code,
                restrict=True,
            )

        loaded = _load_experiment(load, weights, file, overrides, subset)
        experiment = loaded.evaluated
        tasks = build_tasks(experiment)  # reads further names from the files of the dataset
        model_tasks = tasks if loaded.model is experiment else build_tasks(loaded.model)
        check_channels(tasks, model_tasks)
        model = build_model(loaded.model, model_tasks, pretrained=False)
    load_state_strict(model, weights.tensors, file)
    execution = make_execution_config(experiment.train, device)
    execution.to_device(model)
    weights_hash = compute_weights_hash(model)
    return TrainedModel(
        file,
        experiment,
        tasks,
        model,
        execution,
        weights_hash,
        loaded.unlabeled,
        loaded.warnings,
    )


def _load_experiment(
    load: LoadFn, weights: SavedWeights, file: Path, overrides: Sequence[str], subset: bool
) -> LoadedExperiment:
    if subset:
        saved = parse_saved_experiment(weights.config_yaml, file)
        loaded = load_subset(load, saved.list_task_names(), overrides, file)
        return replace(loaded, warnings=tuple(find_class_differences(saved, loaded.evaluated)))
    experiment = load(overrides)
    return LoadedExperiment(experiment, experiment)
