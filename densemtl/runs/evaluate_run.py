"""Scores of a split: of loaded weights, or of predictions in files, whoever made them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from densemtl.factory import build_dataset, build_eval_loader, build_tasks
from densemtl.config.experiment import Experiment
from densemtl.data.base import DenseDataset, Split
from densemtl.data.batching import to_tensor
from densemtl.data.dataloader import Loader, as_is, told_if_killed
from densemtl.evaluation.evaluate import Keep, Scores
from densemtl.evaluation.final_metrics import FinalScorer, evaluate_fully
from densemtl.runtime.progress_bar import watched
from densemtl.errors import DataError
from densemtl.engine.loading import Loaded
from densemtl.evaluation import prediction_files
from densemtl.evaluation.prediction_formats import Map, Rules
from densemtl.runs.record import describe, task_results
from densemtl.results.results import Results, versions
from densemtl.tasks.base import Task

FILES = "files"
"""What stands in results for the parts of a network that is not known."""

Found = Mapping[str, Mapping[str, Path]]
"""{task: {image name: file of its prediction}}."""

SHOWN = 3
"""So many names stand for all of their kind in messages."""


@told_if_killed()
def score(loaded: Loaded, split: Split, keep: Keep | None = None) -> Results:
    """All metrics of a split under the experiment's protocol.

    Args:
        loaded: a network.
        split: of the experiment's dataset.
        keep: takes every prediction that is scored.

    Raises:
        DataError: the data is not there, or not as expected.
    """
    experiment, tasks = loaded.experiment, loaded.tasks
    dataset = build_dataset(experiment, split)
    pin = loaded.precision.device.type == "cuda"
    loader = build_eval_loader(experiment, dataset, tasks, pin)
    batches = watched(loader, len(loader), f"scoring {split}, {len(dataset)} images")
    what = loaded.model, batches, tasks, experiment.protocol, loaded.precision
    scores = evaluate_fully(*what, experiment.loader.workers, keep)
    return _results(experiment, dataset, tasks, scores, loaded.weights)


def score_files(
    experiment: Experiment,
    split: Split,
    folder: Path,
    rules: Rules,
    tell: Callable[[str], None] = print,
) -> Results:
    """Likewise of the predictions in a folder; see `predictions.files`.

    Only images with a label are scored, and only they need a prediction. In place of a network the
    results name the folder, and in place of its weights the hash of the files.

    Args:
        experiment: names dataset, tasks and protocol; its network is not built.
        split: of its dataset.
        folder: holds a folder a task; tasks that have none are left out.
        rules: what the files do not say.
        tell: takes notes on what is left out.

    Raises:
        DataError: predictions are missing or not as expected, or the data is.
    """
    found = _find(folder, experiment.task_names(), tell)
    experiment = _only(experiment, found)
    tasks, dataset = build_tasks(experiment), build_dataset(experiment, split)
    for task, own in found.items():
        _check_names(own, dataset, task, tell)
    digest = hashlib.sha256()
    scores = _score(_Pairs(dataset, tasks, found, rules), tasks, experiment, digest.update)
    results = _results(experiment, dataset, tasks, scores, digest.hexdigest()[:16])
    run = {
        **dict.fromkeys(results.run, FILES),
        "dataset": results.run["dataset"],
        "backbone": folder.resolve().name,
        "balancing": "fixed",
        "predictions": str(folder),
    }
    return results.model_copy(update={"run": run})


def _results(
    experiment: Experiment,
    dataset: DenseDataset,
    tasks: Sequence[Task],
    scores: Scores,
    weights: str,
) -> Results:
    return Results(
        run=describe(experiment),
        tasks=task_results(scores, tasks, experiment),
        protocol=experiment.protocol,
        split=dataset.split,
        split_fingerprint=dataset.fingerprint(),
        images=len(dataset),
        weights=weights,
        seed=experiment.seed,
        fingerprint=experiment.fingerprint(),
        versions=versions(),
    )


def _find(folder: Path, tasks: Sequence[str], tell: Callable[[str], None]) -> Found:
    looked = {task: prediction_files.find(folder, task) for task in tasks}
    found = {task: own for task, own in looked.items() if own is not None}
    if not found:
        raise DataError(f"{folder}: none of the folders {', '.join(tasks)} is here")
    left_out = [task for task in tasks if task not in found]
    if left_out:
        tell(f"not scored, having no folder in {folder}: {', '.join(left_out)}")
    return found


def _only(experiment: Experiment, tasks: Collection[str]) -> Experiment:
    """Some of the tasks, each label of which is read once."""
    kept = tuple(task for task in experiment.tasks if task.name in tasks)
    loader = experiment.loader.model_copy(update={"cache": False})
    changed = {"tasks": kept, "auxiliary_tasks": (), "loader": loader}
    return experiment.model_copy(update=changed)


def _check_names(
    found: Mapping[str, Path], dataset: DenseDataset, task: str, tell: Callable[[str], None]
) -> None:
    missing = [index for index, name in enumerate(dataset.ids) if name not in found]
    if any(task in dataset[index].targets for index in missing):
        names = _some([dataset.ids[index] for index in missing])
        count = f"{len(missing)} of {len(dataset)} images"
        raise DataError(f"{task}: no prediction for {count}: {names}")
    surplus = sorted(set(found) - set(dataset.ids))
    if surplus:
        count = f"{len(surplus)} of {len(found)} files"
        tell(f"{task}: {count} are of no image in {dataset.split!r}: {_some(surplus)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" .." if len(names) > SHOWN else "")


class _Pairs(Dataset[dict[str, tuple[Map, Map, bytes]]]):
    """{task: (prediction, target, hash of the file)} of each image, for the tasks it has."""

    def __init__(
        self, dataset: DenseDataset, tasks: Sequence[Task], found: Found, rules: Rules
    ) -> None:
        self.dataset, self.tasks, self.found, self.rules = dataset, tasks, found, rules

    def __getitem__(self, index: int) -> dict[str, tuple[Map, Map, bytes]]:
        sample, pairs = self.dataset[index], {}
        for task in self.tasks:
            if task.name in sample.targets:
                file = self.found[task.name][sample.id]
                prediction = prediction_files.read(file, task, sample.size, self.rules)
                digest = hashlib.sha256(file.read_bytes()).digest()
                pairs[task.name] = prediction, sample.targets[task.name], digest
        return pairs

    def __len__(self) -> int:
        return len(self.dataset)


def _score(
    pairs: _Pairs, tasks: Sequence[Task], experiment: Experiment, hash_in: Callable[[bytes], None]
) -> Scores:
    workers = experiment.loader.workers
    items: Iterator[Any] = iter(Loader(pairs, as_is, batch_size=None, num_workers=workers))
    with FinalScorer(tasks, experiment.protocol, workers=workers) as scorer:
        for item in items:
            for task in tasks:
                if task.name in item:
                    prediction, target, digest = item[task.name]
                    decoded = prediction_files.to_decoded(task, prediction)
                    scorer.update(task, decoded, to_tensor(target[None]))
                    hash_in(digest)
        return scorer.scores()
