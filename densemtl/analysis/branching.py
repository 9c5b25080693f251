"""Affinities of tasks at each stage of a backbone, and trees within budgets, from trained runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from densemtl.analysis.branch_search import BranchCosts, compute_error_affinity
from densemtl.analysis.representation_similarity import (
    compute_affinity,
    compute_dissimilarities,
    pool_features,
)
from densemtl.backbones.backbone import Backbone
from densemtl.config.experiment import ExperimentConfig
from densemtl.data.base import DenseDataset
from densemtl.decoders.base import SharedBackboneDecoder
from densemtl.engine.loading import TrainedModel
from densemtl.errors import ConfigError, DataError
from densemtl.evaluation.evaluate import forward_low_res
from densemtl.factory import build_dataset, build_eval_loader
from densemtl.io.atomic import write_json
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.types import Batch, Sample, Size
from densemtl.visualization.prediction_panels import pick_evenly_spaced

BudgetOf = Literal["parameters", "multiply_adds"]
"""Cost that a budget limits."""

MIN_IMAGES = 3
"""Minimum number of images; fewer have no correlation of their pairs."""


@dataclass(frozen=True)
class StageAffinity:
    """Affinity of the tasks at each stage.

    Attributes:
        tasks: names of the T tasks, in the order of rows and columns.
        stages: one symmetric matrix (T, T) per stage.
        measure: what was measured.
        images: number of images.
    """

    tasks: tuple[str, ...]
    stages: tuple[NDArray[np.float64], ...]
    measure: str
    images: int

    def save(self, file: Path) -> None:
        """Write the matrices as JSON.

        Args:
            file: output file, written atomically.
        """
        stages = {f"stage {i}": matrix.tolist() for i, matrix in enumerate(self.stages, start=1)}
        content = {"tasks": list(self.tasks), "measure": self.measure, "images": self.images}
        write_json(file, {**content, **stages})


def check_tasks(experiment: ExperimentConfig, runs: Sequence[TrainedModel]) -> None:
    """Check that runs predict the tasks of the configuration that a tree is written for.

    Args:
        experiment: the configuration.
        runs: one run per task, or one run of all tasks.

    Raises:
        ConfigError: if a task is missing or not in the configuration.
    """
    expected = experiment.list_task_names()
    predicted = [task.name for run in runs for task in run.tasks]
    if {*predicted} != {*expected}:
        raise ConfigError(
            f"the runs predict {', '.join(predicted)}, but the configuration has the tasks"
            f" {', '.join(expected)}; pass runs of these tasks, or another configuration"
        )


def measure_stage_affinity(runs: Sequence[TrainedModel], num_images: int) -> StageAffinity:
    """Measure the affinity of tasks from single-task runs, or from one run of several tasks.

    Single-task runs: correlation of the similarities of training images in the features of each
    stage; see `representation_similarity.compute_affinity`. One run: agreement on difficult
    training images, the same for all stages; see `branch_search.compute_error_affinity`.

    Args:
        runs: one run per task, or one run of all tasks.
        num_images: maximum number of training images, evenly spaced in the split.

    Returns:
        The affinities.

    Raises:
        ConfigError: if the runs have the same task twice, several tasks each, or different
            backbones or input sizes, or if their decoders have no single backbone.
        DataError: if there are fewer than three images.
    """
    if len(runs) == 1:
        return _measure_error_affinity(runs[0], num_images)
    tasks = _check_runs(runs)
    by_stage: list[list[Tensor]] = [[] for _ in get_backbone(runs[0]).feature_info.channels]
    count = 0
    for run in runs:
        for stage, vectors in enumerate(_compute_stage_vectors(run, num_images)):
            count = len(vectors)
            by_stage[stage].append(compute_dissimilarities(vectors))
    affinities = tuple(compute_affinity(matrices) for matrices in by_stage)
    return StageAffinity(tasks, affinities, "similarity of representations", count)


def _check_runs(runs: Sequence[TrainedModel]) -> tuple[str, ...]:
    """Return the task of each run, or raise an error if the runs cannot be compared."""
    first = runs[0].experiment
    for run in runs:
        names = [task.name for task in run.tasks]
        if len(names) != 1:
            raise ConfigError(
                f"{run.file}: predicts {', '.join(names)}; pass runs of one task each, or a single"
                " run of all tasks"
            )
        experiment = run.experiment
        for key, value, expected in (
            ("backbone.name", experiment.backbone.name, first.backbone.name),
            ("input.size", list(experiment.input.size), list(first.input.size)),
            ("data.name", experiment.data.name, first.data.name),
        ):
            if value != expected:
                raise ConfigError(
                    f"{run.file}: {key} is {value}, but {expected} in {runs[0].file}; the runs must"
                    " be trained with the same settings"
                )
    tasks = tuple(run.tasks[0].name for run in runs)
    if len(set(tasks)) < len(tasks):
        raise ConfigError(f"two runs predict the same task: {', '.join(tasks)}; pass one per task")
    return tasks


def get_backbone(run: TrainedModel) -> Backbone:
    """Return the backbone of a run whose decoder has one.

    Args:
        run: a trained model.

    Returns:
        The backbone.

    Raises:
        ConfigError: if the decoder has several backbones, or runs one stage by stage.
    """
    decoder = run.model.decoder
    if not isinstance(decoder, SharedBackboneDecoder):
        raise ConfigError(
            f"{run.file}: decoder {run.experiment.decoder.name!r} does not have a single backbone;"
            " pass runs of single_task"
        )
    return decoder.backbone


@torch.inference_mode()
def _compute_stage_vectors(run: TrainedModel, num_images: int) -> list[Tensor]:
    """Return the pooled features (K, D) of each stage."""
    run.model.eval()
    pooled = []
    for batch in _load_batches(run, num_images):
        features = run.execution.forward(run.model.extract_features, batch.image)
        pooled.append([pool_features(feature) for feature in features.maps])
    return [torch.cat(vectors) for vectors in zip(*pooled, strict=True)]


@torch.inference_mode()
def _measure_error_affinity(run: TrainedModel, num_images: int) -> StageAffinity:
    tasks = tuple(task.name for task in run.tasks)
    if len(tasks) < 2:
        raise ConfigError(f"{run.file}: predicts only {tasks[0]}; pass one run per task")
    run.model.eval()
    losses: dict[str, list[float]] = {task: [] for task in tasks}
    for batch in _load_batches(run, num_images):
        predictions = forward_low_res(run.model, batch.model_input, run.execution)
        for task in run.tasks:
            for index, placement in enumerate(batch.placements):
                logits = predictions.logits[task.name][index : index + 1].float()
                lazy = LazyLogits.from_placement(logits, placement, predictions.padded_size)
                height, width = placement.size
                target = batch.targets[task.name][index : index + 1, ..., :height, :width]
                has_labels = bool(task.compute_valid_mask(target).any())
                loss = task.compute_loss(lazy.upsample(), target).item() if has_labels else math.nan
                losses[task.name].append(loss)
    affinity = compute_error_affinity({task: np.array(values) for task, values in losses.items()})
    count = len(losses[tasks[0]])
    num_stages = len(get_backbone(run).feature_info)
    return StageAffinity(tasks, (affinity,) * num_stages, "agreement on difficult images", count)


def _load_batches(run: TrainedModel, num_images: int) -> Iterator[Batch]:
    """Yield batches of training images without augmentation, evenly spaced in the split."""
    dataset = _EvenlySpaced(build_dataset(run.experiment, "train"), num_images)
    if len(dataset) < MIN_IMAGES:
        raise DataError(
            f"{run.file}: {len(dataset)} training images are too few to compare tasks; at least"
            f" {MIN_IMAGES} are needed"
        )
    for batch in build_eval_loader(run.experiment, dataset, run.tasks, pin_memory=False):
        yield batch.to(run.execution.device)


class _EvenlySpaced(DenseDataset):
    """Evenly spaced images of a dataset."""

    def __init__(self, dataset: DenseDataset, num_images: int) -> None:
        super().__init__(dataset.split, dataset.tasks)
        self._dataset = dataset
        self._indices = pick_evenly_spaced(len(dataset), num_images)
        self.ids = [dataset.ids[index] for index in self._indices]

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {}

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]


def measure_branch_costs(backbone: Backbone, size: Size, of: BudgetOf) -> BranchCosts:
    """Measure the cost of the stem and of each stage of a backbone.

    Args:
        backbone: the backbone; it must be possible to run it stage by stage.
        size: (height, width) of the input in pixels.
        of: "parameters" or "multiply_adds".

    Returns:
        The costs.

    Raises:
        ModelError: if the backbone cannot be run stage by stage.
    """
    backbone.check_stages()
    stages = range(len(backbone.feature_info))
    if of == "parameters":
        counts = [
            sum(
                parameter.numel()
                for module in backbone.get_stage_modules(stage)
                for parameter in module.parameters()
            )
            for stage in stages
        ]
        total = sum(parameter.numel() for parameter in backbone.parameters())
        return BranchCosts(total - sum(counts), tuple(counts))
    meta = deepcopy(backbone).to("meta").eval()
    padded = [-(-side // meta.size_divisor) * meta.size_divisor for side in size]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        state = meta.run_stem(torch.empty(1, meta.in_chans, *padded, device="meta"))
        totals = [counter.get_total_flops()]
        for stage in stages:
            state = meta.run_stage(stage, state)
            totals.append(counter.get_total_flops())
    costs = [(after - before) / 2 for before, after in pairwise(totals)]
    return BranchCosts(totals[0] / 2, tuple(costs))
