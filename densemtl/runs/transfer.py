"""Initialization from the weights of any other run, as far as names and shapes agree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from densemtl.backbones.weight_files import COUNTER
from densemtl.config.input_paths import find_weights_file
from densemtl.engine.weights_file import load_weights
from densemtl.errors import CheckpointError, join_names

SHARED_BACKBONE = "decoder.backbone."
"""Prefix of a backbone that all tasks share."""

TASK_BACKBONE = re.compile(r"decoder\.(?:backbones\.[^.]+|shared_backbone)\.(?=net\.)")
"""Prefix of a further backbone, such as that of one task."""


@dataclass(frozen=True)
class TransferReport:
    """Which tensors of a model were loaded from another run.

    Attributes:
        file: the weights file.
        loaded: names of tensors of the model that were loaded.
        mismatched: names that both have, with different shapes; they keep their initial values.
        missing: names that only the model has; they keep their initial values.
        unused: names that only the file has.
    """

    file: Path
    loaded: list[str]
    mismatched: list[str]
    missing: list[str]
    unused: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for text, names in (
            ("new because of another shape", self.mismatched),
            ("new", self.missing),
            ("not used", self.unused),
        ):
            if names:
                parts.append(f"{text}: {join_names(names)}")
        return f"init_from: {self.file}: {'; '.join(parts)}"


def transfer_weights(model: nn.Module, source: Path, *, strict: bool = False) -> TransferReport:
    """Load the weights of another run into a model where names and shapes agree.

    The run may have another decoder, other tasks or other classes. The shared backbone of the run
    is loaded into the backbone of each task if the model has one per task.

    Args:
        model: the model, changed in place.
        source: run folder or weights file.
        strict: whether every tensor of both must be used.

    Returns:
        What was loaded.

    Raises:
        CheckpointError: if the weights cannot be read, if nothing agrees, or if `strict` is set and
            a tensor is not used.
    """
    file = find_weights_file(source)
    tensors = load_weights(file).tensors
    report, values = _match(file, model.state_dict(), tensors)
    if not report.loaded:
        raise CheckpointError(f"{report}; the run has another network: remove init_from")
    if strict and (report.mismatched or report.missing or report.unused):
        raise CheckpointError(f"{report}; the networks must be equal because of init_strict")
    with torch.no_grad():
        state = model.state_dict()
        for name, value in values.items():
            state[name].copy_(value)
    return report


def _match(
    file: Path, own: dict[str, Tensor], tensors: dict[str, Tensor]
) -> tuple[TransferReport, dict[str, Tensor]]:
    report = TransferReport(file, [], [], [], [])
    values: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, tensor in own.items():
        source = name if name in tensors else TASK_BACKBONE.sub(SHARED_BACKBONE, name, count=1)
        if source not in tensors:
            names = report.missing
        elif tensors[source].shape != tensor.shape:
            names = report.mismatched
        else:
            values[name] = tensors[source]
            names = report.loaded
        used.add(source)
        if not name.endswith(COUNTER):
            names.append(name)
    report.unused.extend(
        name for name in tensors if name not in used and not name.endswith(COUNTER)
    )
    return report, values
