"""Networks of one task each, started from single-task runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from densemtl.decoders.task_networks import PerTaskNetworks
from densemtl.engine.checkpoint import find_weights_file, load_weights
from densemtl.errors import CheckpointError, ConfigError
from densemtl.models.multi_task_model import MultiTaskModel

DECODER_PREFIX = "decoder."
"""Where a model keeps its decoder."""


def require_task_networks(model: MultiTaskModel) -> PerTaskNetworks:
    """The decoder, if it has a network a task that can be started from another.

    Raises:
        ConfigError: it has not.
    """
    if not isinstance(model.decoder, PerTaskNetworks):
        name = type(model.decoder).__name__
        raise ConfigError(f"init_from: {name} has no network a task to start; leave it out")
    return model.decoder


def warm_start(model: MultiTaskModel, init_from: Mapping[str, Path]) -> None:
    """Copy backbone and head of each single-task run into its task's network.

    Args:
        model: with a network a task.
        init_from: {task: a run's folder or a weights file}.

    Raises:
        ConfigError: the model has no network a task, or there is none for some task.
        CheckpointError: weights that are missing, corrupt, or of another network.
    """
    decoder = require_task_networks(model)
    for task in decoder.task_names:
        if task not in init_from:
            raise ConfigError(f"init_from: no single-task run for {task!r}")
        file = find_weights_file(init_from[task])
        tensors = load_weights(file).tensors
        weights = {
            k[len(DECODER_PREFIX) :]: v for k, v in tensors.items() if k.startswith(DECODER_PREFIX)
        }
        try:
            decoder.load_single_task(task, weights)
        except RuntimeError as error:
            line = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{file}: cannot start {task!r} from it: {line}") from error
