"""Initialization of one network per task from single-task runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from densemtl.config.input_paths import find_weights_file
from densemtl.decoders.task_networks import PerTaskNetworks
from densemtl.engine.weights_file import load_weights
from densemtl.errors import CheckpointError, ConfigError, shorten_error
from densemtl.io.tensor_files import describe_mismatch
from densemtl.models.multi_task_model import MultiTaskModel

DECODER_PREFIX = "decoder."
"""Prefix of the decoder's parameters in the state dict of a model."""


def require_task_networks(model: MultiTaskModel) -> PerTaskNetworks:
    """Return the decoder of a model, which must have one network per task.

    Args:
        model: the model.

    Returns:
        The decoder.

    Raises:
        ConfigError: if the decoder has no separate network per task.
    """
    if not isinstance(model.decoder, PerTaskNetworks):
        name = type(model.decoder).__name__
        raise ConfigError(
            f"init_from: {name} has no separate network per task to start from a single-task run; "
            f"remove init_from"
        )
    return model.decoder


def warm_start(model: MultiTaskModel, init_from: Mapping[str, Path]) -> None:
    """Copy backbone and head of each single-task run into the network of its task.

    Args:
        model: a model whose decoder has one network per task.
        init_from: {task: run folder or weights file}.

    Raises:
        ConfigError: if the model has no separate network per task, or a task has no run.
        CheckpointError: if weights are missing, corrupt, or of another network.
    """
    decoder = require_task_networks(model)
    for task in decoder.task_names:
        if task not in init_from:
            raise ConfigError(f"init_from: no single-task run for {task!r}; list one per task")
        file = find_weights_file(init_from[task])
        tensors = load_weights(file).tensors
        weights = {
            name.removeprefix(DECODER_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(DECODER_PREFIX)
        }
        try:
            decoder.load_single_task(task, weights)
        except RuntimeError as error:
            networks = {"backbone": decoder.backbones[task], f"heads.{task}": decoder.heads[task]}
            expected = {
                f"{prefix}.{name}": tensor
                for prefix, network in networks.items()
                for name, tensor in network.state_dict().items()
            }
            reason = describe_mismatch(expected, weights) or shorten_error(error)
            raise CheckpointError(
                f"{file}: cannot start {task!r} from these weights: {reason}"
            ) from error
