"""Checkpoints: weights in safetensors, the rest of the loop's state beside them, never half.

Nothing is unpickled into code: tensors come from safetensors, and the state is read by torch with
`weights_only=True`. Every rank takes part in saving, and the first alone writes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from densemtl.atomic import find_folder, replacing, replacing_folder
from densemtl.distributed import is_first
from densemtl.engine.fsdp import parts_of, whole
from densemtl.errors import CheckpointError

CONFIG = "config"
LAST = "last"
BEST = "best.safetensors"
PUBLISHED = "model.safetensors"
"""What the weights are called where they were published, which is the hub's own name for them."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the configuration (YAML) of the experiment that made them."""

    tensors: dict[str, Tensor]
    config: str


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
            save_file(tensors, draft, metadata={CONFIG: weights.config})


def load_weights(file: Path) -> Weights:
    """Read what `save_weights` wrote.

    Raises:
        CheckpointError: missing, corrupt, or without a configuration.
    """
    try:
        with safe_open(file, framework="pt") as handle:
            config = (handle.metadata() or {}).get(CONFIG)
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors checkpoint: {error}") from error
    if config is None:
        raise CheckpointError(f"{file}: holds no configuration; give a checkpoint of this project")
    return Weights(tensors, config)


def apply_weights(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Put tensors into a model that must match them exactly.

    Raises:
        CheckpointError: names or shapes differ.
    """
    try:
        model.load_state_dict(parts_of(tensors, model))
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
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def save_last(folder: Path, model: nn.Module, state: dict[str, Any], config: str) -> None:
    """Replace the run's `last/`: the model, and everything else that the loop goes on from."""
    tensors = _plain(model.state_dict())
    if is_first():
        with replacing_folder(folder / LAST) as draft:
            save_file(tensors, draft / "model.safetensors", {CONFIG: config})
            torch.save(state, draft / "state.pt")


def load_last(folder: Path, model: nn.Module) -> dict[str, Any] | None:
    """Restore the model from `last/` and return the loop's state; None where there is none.

    Raises:
        CheckpointError: a corrupt checkpoint.
    """
    last = find_folder(folder / LAST)
    if last is None:
        return None
    weights = load_weights(last / "model.safetensors")
    apply_weights(model, weights.tensors, last)
    file = last / "state.pt"
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types on a corrupt file
        raise CheckpointError(
            f"{file}: corrupt ({type(error).__name__}); remove the folder {last} to start over"
        ) from error
    return state


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole, contiguous copies that share no memory, as safetensors asks."""
    return {name: tensor.clone().contiguous() for name, tensor in whole(tensors).items()}
