"""Checkpoints: weights in safetensors, the rest of the loop's state beside them, never half.

Nothing is unpickled into code: tensors come from safetensors, and the state is read by torch with
`weights_only=True`. Every rank takes part in saving, and the first alone writes. Both files are
checked as they are read, by checksums that lie in the first one's header; older ones have none.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BufferedWriter, BytesIO, FileIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from densemtl.config.translation import translate_config, translate_parameters
from densemtl.config.yaml_loader import parse_yaml
from densemtl.distributed.collectives import is_main_process
from densemtl.distributed.sharding import gather_full, shard_like
from densemtl.errors import CheckpointError, ConfigError
from densemtl.io.atomic import atomic_write, atomic_write_dir, find_complete_dir

CONFIG_KEY, CHECKSUM_KEY, STATE_CHECKSUM_KEY = "config", "checksum", "state_checksum"
"""Of the header."""

HEADER_KEY = "densemtl"
"""The one key of safetensors' metadata, whose order is random where there are several: the same
weights are the same bytes. Older files have CONFIG in its place."""

STATE_NAME = "state.pt"
LAST_DIR = "last"
BEST_NAME = "best.safetensors"
WEIGHTS_NAME = "model.safetensors"
"""What the weights are called in `last/` and where they were published, as on the hub."""


@dataclass(frozen=True)
class SavedWeights:
    """Tensors by name, and the configuration (YAML) of the experiment that made them."""

    tensors: dict[str, Tensor]
    config_yaml: str

    @property
    def decoder(self) -> str:
        """Name of the decoder that they belong to; empty where the configuration is unreadable."""
        try:
            values, _ = translate_config(parse_yaml(self.config_yaml, CONFIG_KEY))
        except ConfigError:
            return ""
        section = values.get("decoder")
        return str(section.get("name", "")) if isinstance(section, dict) else ""


def find_weights_file(path: Path) -> Path:
    """A run's best weights, published ones, those beside a results file, or the file itself.

    Raises:
        CheckpointError: there is none.
    """
    folder = path.parent if path.suffix == ".json" else path
    file = folder / BEST_NAME if folder.is_dir() else path
    if folder.is_dir() and not file.exists() and (folder / WEIGHTS_NAME).exists():
        return folder / WEIGHTS_NAME
    if not file.exists():
        hint = "no finished validation there yet" if folder.is_dir() else "no such file"
        raise CheckpointError(f"{file}: {hint}; give a run's folder or a .safetensors file")
    return file


def save_weights(file: Path, model: nn.Module, config_yaml: str) -> None:
    """Write a model's parameters and buffers with its configuration, whole or not at all."""
    save_tensors(file, SavedWeights(model.state_dict(), config_yaml))


def save_tensors(file: Path, weights: SavedWeights) -> None:
    """Likewise of tensors that are no model's yet."""
    tensors = _to_contiguous(weights.tensors)
    if is_main_process():
        with atomic_write(file) as tmp_path:
            _write_safetensors(tmp_path, SavedWeights(tensors, weights.config_yaml))


def load_weights(file: Path) -> SavedWeights:
    """Read what `save_weights` wrote.

    Raises:
        CheckpointError: missing, corrupt, or without a configuration.
    """
    return _read_safetensors(file)[0]


def _write_safetensors(file: Path, weights: SavedWeights, **header: str) -> None:
    header |= {CONFIG_KEY: weights.config_yaml, CHECKSUM_KEY: _compute_checksum(weights)}
    try:
        save_file(weights.tensors, file, metadata={HEADER_KEY: json.dumps(header, sort_keys=True)})
    except SafetensorError as error:  # which tells of the operating system in words alone
        raise OSError(str(error).partition("I/O error: ")[2] or str(error)) from error


def _read_safetensors(file: Path) -> tuple[SavedWeights, dict[str, str]]:
    """Weights, which are those that were written, and the header beside them."""
    try:
        with safe_open(file, framework="pt") as handle:
            metadata = dict(handle.metadata() or {})
        header = json.loads(metadata[HEADER_KEY]) if HEADER_KEY in metadata else metadata
        tensors = load_file(file)
    except Exception as error:  # of files, safetensors and torch's types
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file}: not a readable safetensors checkpoint: {reason}") from error
    if CONFIG_KEY not in header:
        raise CheckpointError(f"{file}: holds no configuration; give a checkpoint of this project")
    weights = SavedWeights(tensors, header[CONFIG_KEY])
    _verify_checksum(file, header.get(CHECKSUM_KEY), lambda: _compute_checksum(weights))
    return replace(weights, tensors=translate_parameters(tensors, weights.decoder)), header


def _compute_checksum(weights: SavedWeights) -> str:
    """Of the configuration, and of tensors with their names and shapes."""
    value = zlib.crc32(weights.config_yaml.encode())
    for name, tensor in sorted(weights.tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(_to_bytes(tensor), value)
    return f"{value:08x}"


def _verify_checksum(file: Path, expected: str | None, compute_checksum: Callable[[], str]) -> None:
    if expected is not None and expected != compute_checksum():
        raise CheckpointError(
            f"{file}: corrupt (other bytes than were written); {_format_recovery_hint(file)}"
        )


def _format_recovery_hint(file: Path) -> str:
    return f"take another copy, or remove the folder {file.parent} to start over"


def load_state_strict(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Put tensors into a model that must match them exactly.

    Raises:
        CheckpointError: names or shapes differ.
    """
    try:
        model.load_state_dict(shard_like(tensors, model))
    except RuntimeError as error:
        line = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{source}: does not fit the configured model: {line}") from error


def compute_weights_hash(model: nn.Module) -> str:
    """A short SHA-256 over all parameters and buffers, by name."""
    return compute_tensors_hash(model.state_dict())


def compute_tensors_hash(tensors: dict[str, Tensor]) -> str:
    """Likewise of tensors that are no model's yet."""
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
    """Replace the run's `last/`: the model, and everything else that the loop goes on from."""
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
    """Restore the model from `last/` and return the loop's state; None where there is none.

    Raises:
        CheckpointError: a corrupt checkpoint.
    """
    checkpoint = read_checkpoint(folder)
    if checkpoint is None:
        return None
    weights, state = checkpoint
    load_state_strict(model, weights.tensors, folder / LAST_DIR)
    return state


def read_checkpoint(folder: Path) -> tuple[SavedWeights, dict[str, Any]] | None:
    """The weights and the loop's state in `last/`; None where there is none.

    Raises:
        CheckpointError: a corrupt checkpoint.
    """
    last = find_complete_dir(folder / LAST_DIR)
    if last is None:
        return None
    weights, header = _read_safetensors(last / WEIGHTS_NAME)
    state = _load_state(last / STATE_NAME, header.get(STATE_CHECKSUM_KEY))
    if state.get("ema"):
        state["ema"] = translate_parameters(state["ema"], weights.decoder)
    return weights, state


def _save_state(file: Path, state: dict[str, Any]) -> str:
    """Write the state; gives its checksum back."""
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
        state: dict[str, Any] = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch.load raises many types on a corrupt file
        reason = type(error).__name__
        raise CheckpointError(
            f"{file}: corrupt ({reason}); {_format_recovery_hint(file)}"
        ) from error
    return state


class _ChecksumWriter(BufferedWriter):
    """Adds up a checksum as torch writes, and remembers what torch forgets: why it could not."""

    checksum = 0
    error: OSError | None = None

    def write(self, data: Any) -> int:
        """As any file does."""
        self.checksum = zlib.crc32(data, self.checksum)
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def _to_contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole, contiguous copies that share no memory, as safetensors asks."""
    return {name: tensor.clone().contiguous() for name, tensor in gather_full(tensors).items()}
