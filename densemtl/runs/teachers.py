"""Teachers: trained models whose predictions replace missing training labels (`teachers`).

Each model predicts every image of the training split that lacks a label of its tasks, as in an
evaluation, and the labels are cached on disk. They are then read and augmented like all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from densemtl.config.experiment import ExperimentConfig
from densemtl.config.input_paths import find_weights_file
from densemtl.config.teachers import TeacherConfig
from densemtl.data.image_format import get_image_format
from densemtl.engine.loading import TrainedModel, load_trained_model
from densemtl.errors import ConfigError, UserError, suggest
from densemtl.factory import build_auxiliary_tasks, build_tasks
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask
from densemtl.tasks.pseudo_labels import DEFAULT_THRESHOLD


@dataclass(frozen=True)
class TaughtTask:
    """Task whose missing labels a teacher predicts.

    Attributes:
        predicted: the task as the teacher predicts it.
        threshold: smallest probability of a predicted class.
    """

    predicted: Task
    threshold: float


@dataclass(frozen=True)
class Teacher:
    """Trained model, and the tasks that it teaches.

    Attributes:
        loaded: the model.
        tasks: {name of the task in the run: task}.
    """

    loaded: TrainedModel
    tasks: Mapping[str, TaughtTask]


def load_teachers(
    experiment: ExperimentConfig, execution: ExecutionConfig
) -> tuple[ExperimentConfig, list[Teacher]]:
    """Load the teachers of an experiment; a model that teaches several tasks is loaded once.

    Args:
        experiment: the experiment.
        execution: device of the training.

    Returns:
        The experiment with the hashes of the weights of the teachers, and the teachers.

    Raises:
        ConfigError: if a teacher cannot be loaded, or does not predict the labels of its task.
    """
    if not experiment.teachers:
        return experiment, []
    tasks = [*build_tasks(experiment), *build_auxiliary_tasks(experiment)]
    students = {task.name: task for task in tasks}
    models: dict[Path, TrainedModel] = {}
    taught: dict[Path, dict[str, TaughtTask]] = {}
    configs: dict[str, TeacherConfig] = {}
    for name, config in experiment.teachers.items():
        with _name_task_in_errors(name):
            if name not in students:
                raise ConfigError(f"no task {name!r}, {suggest(name, students)}")
            file = find_weights_file(config.run)
            if file not in models:
                models[file] = load_trained_model(
                    file,
                    device=str(execution.device),
                    trust_custom_code=config.trust_custom_code,
                )
            _check_images(experiment, models[file])
            _check_hash(models[file], config)
            predicted = _find_task(models[file], students[name], config)
        threshold = DEFAULT_THRESHOLD if config.threshold is None else config.threshold
        taught.setdefault(file, {})[name] = TaughtTask(predicted, threshold)
        update = {"weights_hash": models[file].weights_hash}
        configs[name] = config.model_copy(update=update)
    teachers = [Teacher(models[file], taught[file]) for file in models]
    return experiment.model_copy(update={"teachers": configs}), teachers


def _check_images(experiment: ExperimentConfig, loaded: TrainedModel) -> None:
    channels, expected = (
        get_image_format(each.data).channels for each in (experiment, loaded.experiment)
    )
    if channels != expected:
        raise ConfigError(
            f"{loaded.file} takes images of {expected} channels, but those of data have {channels};"
            " choose another teacher"
        )


def _check_hash(loaded: TrainedModel, config: TeacherConfig) -> None:
    """Check that the weights are those of a configuration that a run saved."""
    if config.weights_hash not in (None, loaded.weights_hash):
        raise ConfigError(
            f"{loaded.file} has other weights ({loaded.weights_hash}) than `weights_hash`"
            f" ({config.weights_hash}); use the file of that time, or remove `weights_hash`"
        )


def _find_task(loaded: TrainedModel, student: Task, config: TeacherConfig) -> Task:
    """Return a task of a teacher, after checking that it has the labels of the run's task."""
    predicted = {task.name: task for task in loaded.tasks}
    name = config.task or student.name
    if name not in predicted:
        hint = suggest(name, predicted)
        raise ConfigError(f"{loaded.file} does not predict {name!r}; for `task`, {hint}")
    task = predicted[name]
    if difference := _find_difference(task, student):
        raise ConfigError(
            f"{loaded.file} predicts other labels: {difference}; choose a teacher of this task"
        )
    if config.threshold is not None and not isinstance(task, CategoricalTask):
        raise ConfigError("a task without classes has no threshold; remove it")
    return task


def _find_difference(predicted: Task, student: Task) -> str:
    """Return how the labels of two tasks differ; an empty text if they do not."""
    kinds = [type(task).__name__ for task in (predicted, student)]
    if type(predicted) is not type(student):
        return f"{kinds[0]}, here {kinds[1]}"
    names = [getattr(task, "class_names", ()) for task in (predicted, student)]
    for number, (theirs, ours) in enumerate(zip(*names, strict=False)):
        if theirs != ours:
            return f"class {number} is {theirs!r}, here {ours!r}"
    if predicted.value_channels != student.value_channels:
        return f"{predicted.value_channels} classes or channels, here {student.value_channels}"
    return ""


@contextmanager
def _name_task_in_errors(name: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise ConfigError(f"teachers.{name}: {error}") from error
