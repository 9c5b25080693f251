"""Checkpoints: weights in safetensors and the state of the training loop, written atomically.

No file can run code when it is read: tensors come from safetensors, and the state is read by
`torch.load` with `weights_only=True`. All ranks must call the functions that save, but only the
main process writes. The header of the safetensors file holds checksums of both files, which are
verified when they are read; older checkpoints have no checksums.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from densemtl.config.input_paths import WEIGHTS_NAME
from densemtl.config.translation import translate_config, translate_parameters
from densemtl.config.yaml_loader import parse_yaml
from densemtl.distributed.collectives import is_main_process
from densemtl.distributed.sharding import gather_full, shard_like
from densemtl.engine.state_file import parse_state
from densemtl.errors import CheckpointError, ConfigError, shorten_error
from densemtl.io.atomic import atomic_write, atomic_write_dir, find_complete_dir
from densemtl.io.tensor_files import describe_mismatch

CONFIG_KEY, CHECKSUM_KEY, STATE_CHECKSUM_KEY = "config", "checksum", "state_checksum"
"""Keys of the header."""

HEADER_KEY = "densemtl"
"""The only key of the safetensors metadata, which holds the header as JSON. safetensors writes
several keys in random order; with one key, equal weights give equal bytes. Older files have
`CONFIG_KEY` instead."""

STATE_NAME = "state.pt"
LAST_DIR = "last"


@dataclass(frozen=True)
class SavedWeights:
    """Tensors and the configuration of the experiment that trained them.

    Attributes:
        tensors: {name in the state dict: tensor}.
        config_yaml: the resolved configuration (YAML).
    """

    tensors: dict[str, Tensor]
    config_yaml: str

    @property
    def decoder(self) -> str:
        """Name of the decoder; empty if the configuration is unreadable."""
        try:
            values, _ = translate_config(parse_yaml(self.config_yaml, CONFIG_KEY))
        except ConfigError:
            return ""
        section = values.get("decoder")
        return str(section.get("name", "")) if isinstance(section, dict) else ""


def save_weights(file: Path, model: nn.Module, config_yaml: str) -> None:
    """Save the parameters and buffers of a model atomically.

    Args:
        file: the weights file to write or replace.
        model: the model; if it is sharded, all ranks must call this function.
        config_yaml: resolved configuration (YAML), saved in the header.
    """
    save_tensors(file, SavedWeights(model.state_dict(), config_yaml))


def save_tensors(file: Path, weights: SavedWeights) -> None:
    """Save tensors that are not in a model, like `save_weights`.

    Args:
        file: the weights file to write or replace.
        weights: the tensors and their configuration.
    """
    tensors = _to_contiguous(weights.tensors)
    if is_main_process():
        with atomic_write(file) as tmp_path:
            _write_safetensors(tmp_path, SavedWeights(tensors, weights.config_yaml))


def load_weights(file: Path) -> SavedWeights:
    """Load a file that `save_weights` or `save_tensors` wrote.

    Args:
        file: the weights file.

    Returns:
        The tensors, with current parameter names, and their configuration.

    Raises:
        CheckpointError: if the file is missing, corrupt, or without a configuration.
    """
    return _read_safetensors(file)[0]


def _write_safetensors(file: Path, weights: SavedWeights, **header: str) -> None:
    header |= {CONFIG_KEY: weights.config_yaml, CHECKSUM_KEY: _compute_checksum(weights)}
    try:
        save_file(weights.tensors, file, metadata={HEADER_KEY: json.dumps(header, sort_keys=True)})
    except SafetensorError as error:  # holds the operating system's error only as text
        raise OSError(str(error).partition("I/O error: ")[2] or str(error)) from error


def _read_safetensors(file: Path) -> tuple[SavedWeights, dict[str, str]]:
    """Return the weights, after verifying their checksum, and the header."""
    try:
        with safe_open(file, framework="pt") as handle:
            metadata = dict(handle.metadata() or {})
        header = json.loads(metadata[HEADER_KEY]) if HEADER_KEY in metadata else metadata
        tensors = load_file(file)
    except Exception as error:  # corrupt files raise errors of Python, safetensors and torch
        reason = error.strerror if isinstance(error, OSError) else None
        reason = reason or "it is incomplete, corrupt or of another type"
        raise CheckpointError(f"{file}: not a readable safetensors checkpoint: {reason}") from error
    if CONFIG_KEY not in header:
        raise CheckpointError(f"{file}: holds no configuration; pass a checkpoint of this project")
    weights = SavedWeights(tensors, header[CONFIG_KEY])
    _verify_checksum(file, header.get(CHECKSUM_KEY), lambda: _compute_checksum(weights))
    return replace(weights, tensors=translate_parameters(tensors, weights.decoder)), header


def _compute_checksum(weights: SavedWeights) -> str:
    """Return the CRC-32 of the configuration and of all tensors with names, types and shapes."""
    value = zlib.crc32(weights.config_yaml.encode())
    for name, tensor in sorted(weights.tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(_to_bytes(tensor), value)
    return f"{value:08x}"


def _verify_checksum(file: Path, expected: str | None, compute_checksum: Callable[[], str]) -> None:
    if expected is not None and expected != compute_checksum():
        raise CheckpointError(
            f"{file}: corrupt (its checksum does not match); {format_recovery_hint(file)}"
        )


def format_recovery_hint(file: Path) -> str:
    """Return what to do about a corrupt checkpoint.

    Args:
        file: a file of the checkpoint.

    Returns:
        The end of an error message.
    """
    return f"use another copy, or remove the folder {file.parent} to start over"


def load_state_strict(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Load tensors into a model that must match them exactly.

    Args:
        model: the model to load into; may be sharded.
        tensors: full tensors, {name in the state dict: tensor}.
        source: file or folder of the tensors, for the error message.

    Raises:
        CheckpointError: if names or shapes differ.
    """
    try:
        model.load_state_dict(shard_like(tensors, model))
    except RuntimeError as error:
        reason = describe_mismatch(model.state_dict(), tensors) or shorten_error(error)
        raise CheckpointError(f"{source}: does not fit the configured model: {reason}") from error


def compute_weights_hash(model: nn.Module) -> str:
    """Return a hash of all parameters and buffers and their names.

    Args:
        model: the model; if it is sharded, all ranks must call this function.

    Returns:
        The first 16 hexadecimal digits of a SHA-256.
    """
    return compute_tensors_hash(model.state_dict())


def compute_tensors_hash(tensors: dict[str, Tensor]) -> str:
    """Return the hash of tensors that are not in a model, like `compute_weights_hash`.

    Args:
        tensors: {name in the state dict: tensor}.

    Returns:
        The first 16 hexadecimal digits of a SHA-256.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(_to_contiguous(tensors).items()):
        digest.update(name.encode())
        digest.update(_to_bytes(tensor))
    return digest.hexdigest()[:16]


def _to_bytes(tensor: Tensor) -> memoryview:
    return tensor.cpu().reshape(-1).view(torch.uint8).numpy().data


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
    tensors = _to_contiguous(model.state_dict())
    if is_main_process():
        with atomic_write_dir(folder / LAST_DIR) as tmp_path:
            checksum = _save_state(tmp_path / STATE_NAME, state)
            _write_safetensors(
                tmp_path / WEIGHTS_NAME,
                SavedWeights(tensors, config_yaml),
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
    weights, header = _read_safetensors(last / WEIGHTS_NAME)
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
        _verify_checksum(file, checksum, lambda: f"{zlib.crc32(data):08x}")
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


def _to_contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return full, contiguous copies that share no memory, as safetensors requires."""
    return {name: tensor.clone().contiguous() for name, tensor in gather_full(tensors).items()}
