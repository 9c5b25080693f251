"""Weights files: tensors in safetensors, with the configuration of the run in the header.

They cannot run code when they are read. The header holds checksums, which are verified; older files
have none. All ranks must call the functions that save, but only the main process writes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from densemtl.config.translation import translate_config, translate_parameters
from densemtl.config.yaml_text import parse_yaml
from densemtl.distributed.collectives import is_main_process
from densemtl.distributed.sharding import gather_full, shard_like
from densemtl.errors import CheckpointError, ConfigError, shorten_error
from densemtl.io.atomic import atomic_write
from densemtl.io.tensor_files import describe_mismatch

CONFIG_KEY, CHECKSUM_KEY = "config", "checksum"
"""Keys of the header."""

HEADER_KEY = "densemtl"
"""The only key of the safetensors metadata, which holds the header as JSON. safetensors writes
several keys in random order; with one key, equal weights give equal bytes. Older files have
`CONFIG_KEY` instead."""


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
    tensors = gather_tensors(weights.tensors)
    if is_main_process():
        with atomic_write(file) as tmp_path:
            write_weights(tmp_path, SavedWeights(tensors, weights.config_yaml))


def load_weights(file: Path) -> SavedWeights:
    """Load a file that `save_weights` or `save_tensors` wrote.

    Args:
        file: the weights file.

    Returns:
        The tensors, with current parameter names and half precision converted to float32, and their
        configuration.

    Raises:
        CheckpointError: if the file is missing, corrupt, or without a configuration.
    """
    return read_weights(file)[0]


def write_weights(file: Path, weights: SavedWeights, **header: str) -> None:
    """Write a weights file, not atomically.

    Args:
        file: the file to write.
        weights: contiguous tensors and their configuration.
        **header: further entries of the header.

    Raises:
        OSError: if the file cannot be written.
    """
    header |= {CONFIG_KEY: weights.config_yaml, CHECKSUM_KEY: _compute_checksum(weights)}
    try:
        save_file(weights.tensors, file, metadata={HEADER_KEY: json.dumps(header, sort_keys=True)})
    except SafetensorError as error:  # holds the operating system's error only as text
        raise OSError(str(error).partition("I/O error: ")[2] or str(error)) from error


def read_weights(file: Path) -> tuple[SavedWeights, dict[str, str]]:
    """Read a weights file and verify its checksum.

    Args:
        file: the weights file.

    Returns:
        The weights, with current parameter names, and the header.

    Raises:
        CheckpointError: if the file is missing, corrupt, or without a configuration.
    """
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
    verify_checksum(file, header.get(CHECKSUM_KEY), lambda: _compute_checksum(weights))
    tensors = {
        name: tensor.float() if tensor.dtype == torch.float16 else tensor
        for name, tensor in translate_parameters(tensors, weights.decoder).items()
    }
    return replace(weights, tensors=tensors), header


def _compute_checksum(weights: SavedWeights) -> str:
    """Return the CRC-32 of the configuration and of all tensors with names, types and shapes."""
    value = zlib.crc32(weights.config_yaml.encode())
    for name, tensor in sorted(weights.tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(_to_bytes(tensor), value)
    return f"{value:08x}"


def verify_checksum(file: Path, expected: str | None, compute_checksum: Callable[[], str]) -> None:
    """Compare the checksum of a file with the one in the header.

    Args:
        file: the file, for the error message.
        expected: the checksum in the header; None in older files.
        compute_checksum: function that computes the checksum of the content.

    Raises:
        CheckpointError: if the checksums differ.
    """
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
    for name, tensor in sorted(gather_tensors(tensors).items()):
        digest.update(name.encode())
        digest.update(_to_bytes(tensor))
    return digest.hexdigest()[:16]


def _to_bytes(tensor: Tensor) -> memoryview:
    return tensor.cpu().reshape(-1).view(torch.uint8).numpy().data


def gather_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors as safetensors requires them; all ranks must call this function.

    Args:
        tensors: {name in the state dict: tensor}, which may be sharded.

    Returns:
        Full, contiguous copies that share no memory.
    """
    return {name: tensor.clone().contiguous() for name, tensor in gather_full(tensors).items()}
