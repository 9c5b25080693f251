"""Initial model of a run, built once before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from densemtl.config.experiment import ExperimentConfig
from densemtl.distributed.collectives import get_per_rank_batch_size
from densemtl.engine.build_distillation import build_distillation
from densemtl.engine.distillation import Distillation
from densemtl.factory import build_model
from densemtl.models.complexity import count_flops, meta_copy
from densemtl.models.input_checks import check_min_feature_size
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runtime.rng_state import get_rng_state
from densemtl.tasks.base import Task

GIGA = 1e9


@dataclass(frozen=True)
class InitialModel:
    """Untrained model on the CPU.

    Attributes:
        model: the model, with random or pretrained weights.
        rng_state: state of torch's random number generators after the weights were initialized.
            Training starts from this state, even if other models were trained in between.
        gflop: cost of the forward pass of one image at input size, in GFLOP.
        distillation: teachers of features, and untrained projections to them; None for none.
    """

    model: MultiTaskModel
    rng_state: dict[str, Any]
    gflop: float
    distillation: Distillation | None = None


def build_initial_model(experiment: ExperimentConfig, tasks: Sequence[Task]) -> InitialModel:
    """Build the model of an experiment; its weights depend only on the seed of the experiment.

    Args:
        experiment: defines backbone, decoder, head, input size and seed.
        tasks: the tasks to predict; auxiliary tasks are taken from the experiment.

    Returns:
        The model, the random state after initialization, its cost, and the teachers of features.

    Raises:
        ConfigError: if the experiment has settings that distillation does not support.
        ModelError: if the components do not fit together, pretrained weights cannot be loaded, or
            the input is too small to train on.
    """
    torch.manual_seed(experiment.seed)
    model = build_model(experiment, tasks)
    rng_state = get_rng_state()
    check_min_feature_size(
        model, experiment.input.size, get_per_rank_batch_size(experiment.loader.batch_size)
    )
    flop = sum(count_flops(meta_copy(model), experiment.input.size).values())
    # After `rng_state`, so that the random numbers of the training do not depend on teachers.
    distillation = build_distillation(experiment, model)
    return InitialModel(model, rng_state, round(flop / GIGA, 4), distillation)
