"""Checkpoints: weights and the state of the training loop, written atomically.

No file can run code when it is read: tensors come from safetensors, and the state is read by
`torch.load` with `weights_only=True`. All ranks must call the functions that save, but only the
main process writes. The header of the weights file holds checksums of both files, which are
verified when they are read; older checkpoints have no checksums.
"""

from __future__ import annotations

import zlib
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from densemtl.config.input_paths import WEIGHTS_NAME
from densemtl.config.translation import translate_parameters
from densemtl.distributed.collectives import is_main_process
from densemtl.engine.state_file import parse_state
from densemtl.engine.weights_file import (
    SavedWeights,
    format_recovery_hint,
    gather_tensors,
    load_state_strict,
    read_weights,
    verify_checksum,
    write_weights,
)
from densemtl.errors import CheckpointError
from densemtl.io.atomic import atomic_write_dir, find_complete_dir

STATE_NAME = "state.pt"
LAST_DIR = "last"

STATE_CHECKSUM_KEY = "state_checksum"
"""Key of the checksum of the state in the header of the weights file."""


def save_checkpoint(
    folder: Path, model: nn.Module, state: dict[str, Any], config_yaml: str
) -> None:
    """Replace the checkpoint `last/` of a run atomically.

    Args:
        folder: the run folder.
        model: the model; if it is sharded, all ranks must call this function.
        state: everything else that training resumes from; readable by `torch.load` with
            `weights_only=True`.
        config_yaml: resolved configuration (YAML).
    """
    tensors = gather_tensors(model.state_dict())
    if is_main_process():
        write_checkpoint(folder, SavedWeights(tensors, config_yaml), state)


def write_checkpoint(folder: Path, weights: SavedWeights, state: dict[str, Any]) -> None:
    """Replace the checkpoint `last/` of a run atomically, without any collective operation.

    Args:
        folder: the run folder.
        weights: full tensors of the model that share no memory, and the configuration.
        state: everything else that training resumes from, as for `save_checkpoint`.

    Raises:
        OutputError: if the checkpoint cannot be written; the previous one is intact.
    """
    tensors = {name: tensor.contiguous() for name, tensor in weights.tensors.items()}
    with atomic_write_dir(folder / LAST_DIR) as tmp_path:
        checksum = _save_state(tmp_path / STATE_NAME, state)
        write_weights(
            tmp_path / WEIGHTS_NAME,
            SavedWeights(tensors, weights.config_yaml),
            **{STATE_CHECKSUM_KEY: checksum},
        )


def load_checkpoint(folder: Path, model: nn.Module) -> dict[str, Any] | None:
    """Restore a model from the checkpoint `last/`.

    Args:
        folder: the run folder.
        model: the model to load the weights into.

    Returns:
        The saved state of the training loop; None if there is no checkpoint.

    Raises:
        CheckpointError: if the checkpoint is corrupt or of another model.
    """
    checkpoint = read_checkpoint(folder)
    if checkpoint is None:
        return None
    weights, state = checkpoint
    load_state_strict(model, weights.tensors, folder / LAST_DIR)
    return state


def read_checkpoint(folder: Path) -> tuple[SavedWeights, dict[str, Any]] | None:
    """Read the checkpoint `last/` without a model.

    Args:
        folder: the run folder.

    Returns:
        The weights and the state of the training loop; None if there is no checkpoint.

    Raises:
        CheckpointError: if the checkpoint is corrupt.
    """
    last = find_complete_dir(folder / LAST_DIR)
    if last is None:
        return None
    weights, header = read_weights(last / WEIGHTS_NAME)
    state = _load_state(last / STATE_NAME, header.get(STATE_CHECKSUM_KEY))
    if isinstance(ema := state.get("ema"), dict):
        state["ema"] = translate_parameters(ema, weights.decoder)
    return weights, state


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run folder contains a checkpoint to resume from.

    Args:
        folder: the run folder.

    Returns:
        True if there is one, corrupt or not.
    """
    return find_complete_dir(folder / LAST_DIR) is not None


def _save_state(file: Path, state: dict[str, Any]) -> str:
    """Write the state and return its checksum."""
    with _ChecksumWriter(FileIO(file, "wb")) as output:
        try:
            torch.save(state, output)
        except RuntimeError as error:
            raise output.error or error from error.__context__
    return f"{output.checksum:08x}"


def _load_state(file: Path, checksum: str | None) -> dict[str, Any]:
    try:
        data = file.read_bytes()
        verify_checksum(file, checksum, lambda: f"{zlib.crc32(data):08x}")
        return parse_state(data)
    except CheckpointError:
        raise
    except Exception as error:  # torch.load raises many types on a corrupt file
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise CheckpointError(
            f"{file}: corrupt ({reason}); {format_recovery_hint(file)}"
        ) from error


class _ChecksumWriter(BufferedWriter):
    """Buffered writer that computes a CRC-32 and keeps the error of a failed write.

    `torch.save` replaces that error by a RuntimeError without the reason.
    """

    checksum = 0
    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write data and update the checksum."""
        self.checksum = zlib.crc32(data, self.checksum)
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise
