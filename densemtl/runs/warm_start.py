"""Networks of one task each, started from single-task runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from densemtl.decoders.task_networks import OwnNetworks
from densemtl.engine.checkpoint import load_weights, weights_file
from densemtl.errors import CheckpointError, ConfigError
from densemtl.models.multi_task_model import DenseModel

INSIDE = "decoder."
"""Where a model keeps its decoder."""


def own_networks(model: DenseModel) -> OwnNetworks:
    """The decoder, if it has a network a task that can be started from another.

    Raises:
        ConfigError: it has not.
    """
    if not isinstance(model.decoder, OwnNetworks):
        name = type(model.decoder).__name__
        raise ConfigError(f"init_from: {name} has no network a task to start; leave it out")
    return model.decoder


def warm_start(model: DenseModel, singles: Mapping[str, Path]) -> None:
    """Copy backbone and head of each single-task run into its task's network.

    Args:
        model: with a network a task.
        singles: {task: a run's folder or a weights file}.

    Raises:
        ConfigError: the model has no network a task, or there is none for some task.
        CheckpointError: weights that are missing, corrupt, or of another network.
    """
    decoder = own_networks(model)
    for task in decoder.task_names:
        if task not in singles:
            raise ConfigError(f"init_from: no single-task run for {task!r}")
        file = weights_file(singles[task])
        tensors = load_weights(file).tensors
        own = {k[len(INSIDE) :]: v for k, v in tensors.items() if k.startswith(INSIDE)}
        try:
            decoder.start_from(task, own)
        except RuntimeError as error:
            line = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{file}: cannot start {task!r} from it: {line}") from error
