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

from densemtl.io.atomic import find_folder, replacing, replacing_folder
from densemtl.config.yaml_loader import parse_yaml
from densemtl.distributed.collectives import is_first
from densemtl.distributed.sharding import gather_full, shard_like
from densemtl.errors import CheckpointError, ConfigError
from densemtl.config.renamed_keys import translate_config, translate_parameters

CONFIG, CHECKSUM, STATE_CHECKSUM = "config", "checksum", "state_checksum"
"""Of the header."""

HEADER = "densemtl"
"""The one key of safetensors' metadata, whose order is random where there are several: the same
weights are the same bytes. Older files have CONFIG in its place."""

STATE = "state.pt"
LAST = "last"
BEST = "best.safetensors"
PUBLISHED = "model.safetensors"
"""What the weights are called in `last/` and where they were published, as on the hub."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the configuration (YAML) of the experiment that made them."""

    tensors: dict[str, Tensor]
    config: str

    @property
    def decoder(self) -> str:
        """Name of the decoder that they belong to; empty where the configuration is unreadable."""
        try:
            values, _ = translate_config(parse_yaml(self.config, CONFIG))
        except ConfigError:
            return ""
        section = values.get("decoder")
        return str(section.get("name", "")) if isinstance(section, dict) else ""


def weights_file(path: Path) -> Path:
    """A run's best weights, published ones, those beside a results file, or the file itself.

    Raises:
        CheckpointError: there is none.
    """
    folder = path.parent if path.suffix == ".json" else path
    file = folder / BEST if folder.is_dir() else path
    if folder.is_dir() and not file.exists() and (folder / PUBLISHED).exists():
        return folder / PUBLISHED
    if not file.exists():
        hint = "no finished validation there yet" if folder.is_dir() else "no such file"
        raise CheckpointError(f"{file}: {hint}; give a run's folder or a .safetensors file")
    return file


def save_weights(file: Path, model: nn.Module, config: str) -> None:
    """Write a model's parameters and buffers with its configuration, whole or not at all."""
    save_tensors(file, Weights(model.state_dict(), config))


def save_tensors(file: Path, weights: Weights) -> None:
    """Likewise of tensors that are no model's yet."""
    tensors = _plain(weights.tensors)
    if is_first():
        with replacing(file) as draft:
            _write(draft, Weights(tensors, weights.config))


def load_weights(file: Path) -> Weights:
    """Read what `save_weights` wrote.

    Raises:
        CheckpointError: missing, corrupt, or without a configuration.
    """
    return _read(file)[0]


def _write(file: Path, weights: Weights, **header: str) -> None:
    header |= {CONFIG: weights.config, CHECKSUM: _checksum(weights)}
    try:
        save_file(weights.tensors, file, metadata={HEADER: json.dumps(header, sort_keys=True)})
    except SafetensorError as error:  # which tells of the operating system in words alone
        raise OSError(str(error).partition("I/O error: ")[2] or str(error)) from error


def _read(file: Path) -> tuple[Weights, dict[str, str]]:
    """Weights, which are those that were written, and the header beside them."""
    try:
        with safe_open(file, framework="pt") as handle:
            metadata = dict(handle.metadata() or {})
        header = json.loads(metadata[HEADER]) if HEADER in metadata else metadata
        tensors = load_file(file)
    except Exception as error:  # of files, safetensors and torch's types
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file}: not a readable safetensors checkpoint: {reason}") from error
    if CONFIG not in header:
        raise CheckpointError(f"{file}: holds no configuration; give a checkpoint of this project")
    weights = Weights(tensors, header[CONFIG])
    _check(file, header.get(CHECKSUM), lambda: _checksum(weights))
    return replace(weights, tensors=translate_parameters(tensors, weights.decoder)), header


def _checksum(weights: Weights) -> str:
    """Of the configuration, and of tensors with their names and shapes."""
    value = zlib.crc32(weights.config.encode())
    for name, tensor in sorted(weights.tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(_bytes(tensor), value)
    return f"{value:08x}"


def _check(file: Path, expected: str | None, found: Callable[[], str]) -> None:
    if expected is not None and expected != found():
        raise CheckpointError(f"{file}: corrupt (other bytes than were written); {_again(file)}")


def _again(file: Path) -> str:
    return f"take another copy, or remove the folder {file.parent} to start over"


def apply_weights(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Put tensors into a model that must match them exactly.

    Raises:
        CheckpointError: names or shapes differ.
    """
    try:
        model.load_state_dict(shard_like(tensors, model))
    except RuntimeError as error:
        line = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{source}: does not fit the configured model: {line}") from error


def weights_hash(model: nn.Module) -> str:
    """A short SHA-256 over all parameters and buffers, by name."""
    return tensors_hash(model.state_dict())


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """Likewise of tensors that are no model's yet."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_plain(tensors).items()):
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.cpu().reshape(-1).view(torch.uint8).numpy().data


def save_last(folder: Path, model: nn.Module, state: dict[str, Any], config: str) -> None:
    """Replace the run's `last/`: the model, and everything else that the loop goes on from."""
    tensors = _plain(model.state_dict())
    if is_first():
        with replacing_folder(folder / LAST) as draft:
            checksum = _save_state(draft / STATE, state)
            _write(draft / PUBLISHED, Weights(tensors, config), **{STATE_CHECKSUM: checksum})


def load_last(folder: Path, model: nn.Module) -> dict[str, Any] | None:
    """Restore the model from `last/` and return the loop's state; None where there is none.

    Raises:
        CheckpointError: a corrupt checkpoint.
    """
    found = read_last(folder)
    if found is None:
        return None
    weights, state = found
    apply_weights(model, weights.tensors, folder / LAST)
    return state


def read_last(folder: Path) -> tuple[Weights, dict[str, Any]] | None:
    """The weights and the loop's state in `last/`; None where there is none.

    Raises:
        CheckpointError: a corrupt checkpoint.
    """
    last = find_folder(folder / LAST)
    if last is None:
        return None
    weights, header = _read(last / PUBLISHED)
    state = _load_state(last / STATE, header.get(STATE_CHECKSUM))
    if state.get("ema"):
        state["ema"] = translate_parameters(state["ema"], weights.decoder)
    return weights, state


def _save_state(file: Path, state: dict[str, Any]) -> str:
    """Write the state; gives its checksum back."""
    with _Output(FileIO(file, "wb")) as output:
        try:
            torch.save(state, output)
        except RuntimeError as error:
            raise output.error or error from error.__context__
    return f"{output.checksum:08x}"


def _load_state(file: Path, checksum: str | None) -> dict[str, Any]:
    try:
        data = file.read_bytes()
        _check(file, checksum, lambda: f"{zlib.crc32(data):08x}")
        state: dict[str, Any] = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch.load raises many types on a corrupt file
        reason = type(error).__name__
        raise CheckpointError(f"{file}: corrupt ({reason}); {_again(file)}") from error
    return state


class _Output(BufferedWriter):
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


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole, contiguous copies that share no memory, as safetensors asks."""
    return {name: tensor.clone().contiguous() for name, tensor in gather_full(tensors).items()}
