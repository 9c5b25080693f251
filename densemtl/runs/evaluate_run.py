"""Evaluation of a split: of a trained model, or of prediction files from any source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.base import DenseDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader, as_is, translate_worker_errors
from densemtl.data.file_dataset import MissingLabelsError
from densemtl.data.loaders import count_workers
from densemtl.engine.loading import TrainedModel
from densemtl.errors import DataError
from densemtl.evaluation import prediction_files
from densemtl.evaluation.evaluate import PredictionCallback
from densemtl.evaluation.final_metrics import FinalTaskMetrics, evaluate_with_final_metrics
from densemtl.evaluation.prediction_formats import PredictionMap, ReadOptions
from densemtl.evaluation.scores import Scores
from densemtl.factory import build_dataset, build_eval_loader, build_tasks
from densemtl.ops.layouts import to_tensor
from densemtl.results.results import Results
from densemtl.runs.record import build_task_results, get_component_names
from densemtl.runtime.progress_bar import print_message, track_progress
from densemtl.runtime.versions import get_versions
from densemtl.tasks.base import Task
from densemtl.types import Split

UNKNOWN_COMPONENT = "files"
"""Name of unknown components of a network in the results of prediction files."""

PredictionFiles = Mapping[str, Mapping[str, Path]]
"""{task: {image id: prediction file}}."""

NO_LABELS = "the dataset has no labels of this task"
"""Reason for which a task is left out that the dataset does not offer."""

MAX_LISTED_NAMES = 3
"""Maximum number of image ids that a message lists."""


@translate_worker_errors()
def evaluate_model(
    trained: TrainedModel,
    split: Split,
    on_prediction: PredictionCallback | None = None,
    report: Callable[[str], None] = print_message,
) -> Results:
    """Evaluate a trained model with all metrics of the protocol of its experiment.

    Tasks that no image of the split has a label of are left out.

    Args:
        trained: the model and its experiment.
        split: the split of the dataset to evaluate.
        on_prediction: function that is called with every evaluated prediction.
        report: function that is called with one line about each task that is left out, or has
            other classes than in the training.

    Returns:
        The results of the whole split, whose `warnings` are these lines and those about missing
        labels.

    Raises:
        DataError: if data is missing or not as expected, or has no label of any task.
        WorkerError: if a worker process was killed.
    """
    experiment = trained.experiment
    dataset, left_out = _build_labeled_dataset(experiment, split)
    left_out = {**dict.fromkeys(trained.unlabeled_tasks, NO_LABELS), **left_out}
    lines = [f"{name} is not evaluated: {reason}" for name, reason in left_out.items()]
    lines += trained.warnings
    for line in lines:
        report(line)
    tasks = [task for task in trained.tasks if task.name not in left_out]
    pin_memory = trained.execution.device.type == "cuda"
    loader = build_eval_loader(experiment, dataset, tasks, pin_memory)
    batches = track_progress(loader, len(loader), f"evaluating {split}, {len(dataset)} images")
    args = trained.model, batches, tasks, experiment.protocol, trained.execution
    scores = evaluate_with_final_metrics(
        *args, count_workers(experiment.loader.num_workers), on_prediction, dataset.task_sets
    )
    results = _build_results(experiment, dataset, tasks, scores, trained.weights_hash)
    lines += dataset.missing_labels.values()
    return results.model_copy(update={"warnings": lines})


def _build_labeled_dataset(
    experiment: ExperimentConfig, split: Split
) -> tuple[DenseDataset, dict[str, str]]:
    """Return the dataset, and {task: reason} for the tasks that have no label in the split."""
    left_out: dict[str, str] = {}
    while True:
        try:
            return build_dataset(experiment, split), left_out
        except MissingLabelsError as error:
            experiment = _remove_task(experiment, error.task)
            if not experiment.tasks:
                raise
            left_out[error.task] = error.reason


def _remove_task(experiment: ExperimentConfig, name: str) -> ExperimentConfig:
    sections = {"tasks": experiment.tasks, "auxiliary_tasks": experiment.auxiliary_tasks}
    kept = {
        section: tuple(task for task in tasks if task.name != name)
        for section, tasks in sections.items()
    }
    return experiment.model_copy(update=kept)


def evaluate_predictions(
    experiment: ExperimentConfig,
    split: Split,
    folder: Path,
    options: ReadOptions,
    report: Callable[[str], None] = print,
) -> Results:
    """Evaluate prediction files with all metrics of the protocol of an experiment.

    Only images with a label are evaluated, and only these need a prediction. Metrics that compare
    with labels of another task are computed over the images with both labels. The formats are
    described in `densemtl.evaluation.prediction_files`. The results contain the name of the folder
    instead of a backbone, and a hash of the files instead of a hash of weights.

    Args:
        experiment: defines dataset, tasks and protocol; its model is not built.
        split: the split of the dataset to evaluate.
        folder: contains one folder per task; tasks without a folder are left out.
        options: how to read files whose format is ambiguous.
        report: function that is called with one line about each task and file that is left out.

    Returns:
        The results.

    Raises:
        DataError: if predictions or data are missing or not as expected.
    """
    files = _find_prediction_files(folder, experiment.list_task_names(), report)
    experiment = _restrict_tasks(experiment, files)
    tasks, dataset = build_tasks(experiment), build_dataset(experiment, split)
    for task, task_files in files.items():
        _check_image_names(task_files, dataset, task, report)
    digest = hashlib.sha256()
    scores = _compute_scores(
        _PredictionTargetDataset(dataset, tasks, files, options), tasks, experiment, digest.update
    )
    results = _build_results(experiment, dataset, tasks, scores, digest.hexdigest()[:16])
    run = {
        **dict.fromkeys(results.run, UNKNOWN_COMPONENT),
        "dataset": results.run["dataset"],
        "backbone": folder.resolve().name,
        "balancing": "fixed",
        "predictions": str(folder),
    }
    return results.model_copy(update={"run": run})


def _build_results(
    experiment: ExperimentConfig,
    dataset: DenseDataset,
    tasks: Sequence[Task],
    scores: Scores,
    weights_hash: str,
) -> Results:
    return Results(
        run=get_component_names(experiment),
        tasks=build_task_results(scores, tasks, experiment),
        protocol=experiment.protocol,
        split=dataset.split,
        split_fingerprint=dataset.fingerprint(),
        images=len(dataset),
        weights_hash=weights_hash,
        seed=experiment.seed,
        config_hash=experiment.compute_config_hash(),
        versions=get_versions(),
    )


def _find_prediction_files(
    folder: Path, tasks: Sequence[str], report: Callable[[str], None]
) -> PredictionFiles:
    found = {task: prediction_files.find_predictions(folder, task) for task in tasks}
    files = {task: task_files for task, task_files in found.items() if task_files is not None}
    if not files:
        raise DataError(
            f"{folder}: contains none of the folders {', '.join(tasks)} (pass the folder that"
            f" contains one folder per task)"
        )
    skipped = [task for task in tasks if task not in files]
    if skipped:
        report(f"not evaluated, because {folder} contains no folder: {', '.join(skipped)}")
    return files


def _restrict_tasks(experiment: ExperimentConfig, tasks: Collection[str]) -> ExperimentConfig:
    """Return an experiment with some of the tasks, and without cache since labels are read once."""
    task_configs = tuple(
        task.without_other_tasks(tasks) for task in experiment.tasks if task.name in tasks
    )
    loader = experiment.loader.model_copy(update={"cache": False})
    changes = {"tasks": task_configs, "auxiliary_tasks": (), "loader": loader}
    return experiment.model_copy(update=changes)


def _check_image_names(
    prediction_files: Mapping[str, Path],
    dataset: DenseDataset,
    task: str,
    report: Callable[[str], None],
) -> None:
    """Check that every image with a label has a prediction, and report unknown files.

    Raises:
        DataError: if predictions are missing.
    """
    missing = [index for index, name in enumerate(dataset.ids) if name not in prediction_files]
    if any(task in dataset[index].targets for index in missing):
        names = _format_preview([dataset.ids[index] for index in missing])
        count = f"{len(missing)} of {len(dataset)} images"
        raise DataError(f"{task}: no prediction for {count}: {names}")
    surplus = sorted(set(prediction_files) - set(dataset.ids))
    if surplus:
        count = f"{len(surplus)} of {len(prediction_files)} files"
        preview = _format_preview(surplus)
        report(f"{task}: {count} match no image of split {dataset.split!r}: {preview}")


def _format_preview(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_LISTED_NAMES]) + (" .." if len(names) > MAX_LISTED_NAMES else "")


class _ScoredImage(NamedTuple):
    """Targets of an image, and the prediction and the hash of its file for each labeled task."""

    targets: Mapping[str, NDArray[np.generic]]
    predictions: Mapping[str, tuple[PredictionMap, bytes]]


class _PredictionTargetDataset(Dataset[_ScoredImage]):
    """Dataset of targets and predictions, for the labeled tasks of an image.

    Args:
        dataset: the images and their targets.
        tasks: the tasks to evaluate.
        prediction_files: {task: {image id: prediction file}}.
        options: how to read files whose format is ambiguous.
    """

    def __init__(
        self,
        dataset: DenseDataset,
        tasks: Sequence[Task],
        prediction_files: PredictionFiles,
        options: ReadOptions,
    ) -> None:
        self.dataset, self.tasks = dataset, tasks
        self.prediction_files, self.options = prediction_files, options

    def __getitem__(self, index: int) -> _ScoredImage:
        sample, predictions = self.dataset[index], {}
        for task in self.tasks:
            if task.name in sample.targets:
                file = self.prediction_files[task.name][sample.id]
                prediction = prediction_files.read_prediction(file, task, sample.size, self.options)
                digest = hashlib.sha256(file.read_bytes()).digest()
                predictions[task.name] = prediction, digest
        return _ScoredImage(sample.targets, predictions)

    def __len__(self) -> int:
        return len(self.dataset)


def _compute_scores(
    pairs: _PredictionTargetDataset,
    tasks: Sequence[Task],
    experiment: ExperimentConfig,
    update_hash: Callable[[bytes], None],
) -> Scores:
    workers = count_workers(experiment.loader.num_workers)
    images: Iterator[Any] = iter(
        ErrorForwardingDataLoader(pairs, as_is, batch_size=None, num_workers=workers)
    )
    sets = pairs.dataset.task_sets
    with FinalTaskMetrics(
        tasks, experiment.protocol, num_workers=workers, task_sets=sets
    ) as scorer:
        for image_id, image in zip(pairs.dataset.ids, images, strict=True):
            targets = {name: to_tensor(each[None]) for name, each in image.targets.items()}
            for task in tasks:
                if task.name in image.predictions:
                    prediction, digest = image.predictions[task.name]
                    decoded = prediction_files.to_decoded_batch(task, prediction)
                    scorer.update(task, decoded, targets[task.name], image_id)
                    if not task.has_validity:  # files contain the values of all pixels
                        scorer.update_cross(task, decoded, targets[task.name], targets)
                    update_hash(digest)
        return scorer.compute()
