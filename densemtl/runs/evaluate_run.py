"""Scores of a split: of loaded weights, or of predictions in files, whoever made them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.base import DenseDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader, as_is, translate_worker_errors
from densemtl.engine.loading import TrainedModel
from densemtl.errors import DataError
from densemtl.evaluation import prediction_files
from densemtl.evaluation.evaluate import PredictionCallback, Scores
from densemtl.evaluation.final_metrics import FinalTaskMetrics, evaluate_with_final_metrics
from densemtl.evaluation.prediction_formats import PredictionMap, ReadOptions
from densemtl.factory import build_dataset, build_eval_loader, build_tasks
from densemtl.ops.layouts import to_tensor
from densemtl.results.results import Results
from densemtl.runs.record import build_task_results, get_component_names
from densemtl.runtime.progress_bar import track_progress
from densemtl.runtime.versions import get_versions
from densemtl.tasks.base import Task
from densemtl.types import Split

UNKNOWN_COMPONENT = "files"
"""What stands in results for the parts of a network that is not known."""

PredictionFiles = Mapping[str, Mapping[str, Path]]
"""{task: {image name: file of its prediction}}."""

MAX_LISTED_NAMES = 3
"""So many names stand for all of their kind in messages."""


@translate_worker_errors()
def evaluate_model(
    trained: TrainedModel, split: Split, on_prediction: PredictionCallback | None = None
) -> Results:
    """All metrics of a split under the experiment's protocol.

    Args:
        trained: a network.
        split: of the experiment's dataset.
        on_prediction: takes every prediction that is scored.

    Raises:
        DataError: the data is not there, or not as expected.
    """
    experiment, tasks = trained.experiment, trained.tasks
    dataset = build_dataset(experiment, split)
    pin = trained.execution.device.type == "cuda"
    loader = build_eval_loader(experiment, dataset, tasks, pin)
    batches = track_progress(loader, len(loader), f"scoring {split}, {len(dataset)} images")
    args = trained.model, batches, tasks, experiment.protocol, trained.execution
    scores = evaluate_with_final_metrics(*args, experiment.loader.num_workers, on_prediction)
    return _build_results(experiment, dataset, tasks, scores, trained.weights_hash)


def evaluate_predictions(
    experiment: ExperimentConfig,
    split: Split,
    folder: Path,
    options: ReadOptions,
    report: Callable[[str], None] = print,
) -> Results:
    """Likewise of the predictions in a folder; see `predictions.files`.

    Only images with a label are scored, and only they need a prediction. In place of a network the
    results name the folder, and in place of its weights the hash of the files.

    Args:
        experiment: names dataset, tasks and protocol; its network is not built.
        split: of its dataset.
        folder: holds a folder a task; tasks that have none are left out.
        options: what the files do not say.
        report: takes notes on what is left out.

    Raises:
        DataError: predictions are missing or not as expected, or the data is.
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
    looked = {task: prediction_files.find_predictions(folder, task) for task in tasks}
    files = {task: task_files for task, task_files in looked.items() if task_files is not None}
    if not files:
        raise DataError(f"{folder}: none of the folders {', '.join(tasks)} is here")
    left_out = [task for task in tasks if task not in files]
    if left_out:
        report(f"not scored, having no folder in {folder}: {', '.join(left_out)}")
    return files


def _restrict_tasks(experiment: ExperimentConfig, tasks: Collection[str]) -> ExperimentConfig:
    """Some of the tasks, each label of which is read once."""
    task_configs = tuple(task for task in experiment.tasks if task.name in tasks)
    loader = experiment.loader.model_copy(update={"cache": False})
    changed = {"tasks": task_configs, "auxiliary_tasks": (), "loader": loader}
    return experiment.model_copy(update=changed)


def _check_image_names(
    prediction_files: Mapping[str, Path],
    dataset: DenseDataset,
    task: str,
    report: Callable[[str], None],
) -> None:
    missing = [index for index, name in enumerate(dataset.ids) if name not in prediction_files]
    if any(task in dataset[index].targets for index in missing):
        names = _format_preview([dataset.ids[index] for index in missing])
        count = f"{len(missing)} of {len(dataset)} images"
        raise DataError(f"{task}: no prediction for {count}: {names}")
    surplus = sorted(set(prediction_files) - set(dataset.ids))
    if surplus:
        count = f"{len(surplus)} of {len(prediction_files)} files"
        report(f"{task}: {count} are of no image in {dataset.split!r}: {_format_preview(surplus)}")


def _format_preview(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_LISTED_NAMES]) + (" .." if len(names) > MAX_LISTED_NAMES else "")


class _PredictionTargetDataset(Dataset[dict[str, tuple[PredictionMap, PredictionMap, bytes]]]):
    """{task: (prediction, target, hash of the file)} of each image, for the tasks it has."""

    def __init__(
        self,
        dataset: DenseDataset,
        tasks: Sequence[Task],
        prediction_files: PredictionFiles,
        options: ReadOptions,
    ) -> None:
        self.dataset, self.tasks, self.prediction_files, self.options = (
            dataset,
            tasks,
            prediction_files,
            options,
        )

    def __getitem__(self, index: int) -> dict[str, tuple[PredictionMap, PredictionMap, bytes]]:
        sample, pairs = self.dataset[index], {}
        for task in self.tasks:
            if task.name in sample.targets:
                file = self.prediction_files[task.name][sample.id]
                prediction = prediction_files.read_prediction(file, task, sample.size, self.options)
                digest = hashlib.sha256(file.read_bytes()).digest()
                pairs[task.name] = prediction, sample.targets[task.name], digest
        return pairs

    def __len__(self) -> int:
        return len(self.dataset)


def _compute_scores(
    pairs: _PredictionTargetDataset,
    tasks: Sequence[Task],
    experiment: ExperimentConfig,
    update_hash: Callable[[bytes], None],
) -> Scores:
    workers = experiment.loader.num_workers
    items: Iterator[Any] = iter(
        ErrorForwardingDataLoader(pairs, as_is, batch_size=None, num_workers=workers)
    )
    with FinalTaskMetrics(tasks, experiment.protocol, num_workers=workers) as scorer:
        for item in items:
            for task in tasks:
                if task.name in item:
                    prediction, target, digest = item[task.name]
                    decoded = prediction_files.to_decoded_batch(task, prediction)
                    scorer.update(task, decoded, to_tensor(target[None]))
                    update_hash(digest)
        return scorer.compute()
