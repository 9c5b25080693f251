"""Evaluate loaded weights on a split."""

from __future__ import annotations

from densemtl.build import build_dataset, build_eval_loader
from densemtl.data.base import Split
from densemtl.engine.evaluate import evaluate
from densemtl.load import Loaded
from densemtl.record import describe, task_results
from densemtl.results import Results, versions


def score(loaded: Loaded, split: Split) -> Results:
    """All metrics of a split under the experiment's protocol.

    Raises:
        DataError: the data is not there, or not as expected.
    """
    experiment, tasks = loaded.experiment, loaded.tasks
    dataset = build_dataset(experiment, split)
    pin = loaded.precision.device.type == "cuda"
    batches = build_eval_loader(experiment, dataset, tasks, pin)
    scores = evaluate(loaded.model, batches, tasks, experiment.protocol, loaded.precision)
    return Results(
        run=describe(experiment),
        tasks=task_results(scores, tasks, experiment),
        protocol=experiment.protocol,
        split=split,
        split_fingerprint=dataset.fingerprint(),
        images=len(dataset),
        weights=loaded.weights,
        seed=experiment.seed,
        fingerprint=experiment.fingerprint(),
        versions=versions(),
    )
