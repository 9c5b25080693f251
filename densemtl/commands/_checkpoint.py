"""Trained model that the commands read from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl.config.shipped_models import MODELS_DIR

if TYPE_CHECKING:
    from densemtl.engine.loading import TrainedModel

CHECKPOINT_HELP = "run folder, .safetensors weights file, or a shipped model (densemtl/NAME)"


def add_checkpoint_argument(parser: argparse.ArgumentParser, default: Path | None = None) -> None:
    """Add the positional argument `checkpoint`.

    Args:
        parser: parser of a command, changed in place.
        default: shipped model for the description of an optional argument, whose value is None if
            it is not given; None for a required argument.
    """
    text = f"{CHECKPOINT_HELP}; default: {default}" if default else CHECKPOINT_HELP
    parser.add_argument("checkpoint", type=Path, nargs="?" if default else None, help=text)


def load_checkpoint(
    args: argparse.Namespace, device: str | None = None, *, subset: bool = False
) -> TrainedModel:
    """Load the trained model that the command line names.

    Args:
        args: parsed command line with `checkpoint`, `overrides` and `trust_custom_code`, and with
            `device` unless it is given here.
        device: "cpu", "cuda", "cuda:1" or "mps"; None uses that of the command line.
        subset: whether overrides may list some of the tasks, or data with labels of some.

    Returns:
        The model and its experiment.

    Raises:
        UserError: if the weights cannot be read, or an override is wrong.
    """
    from densemtl.engine.loading import load_trained_model

    return load_trained_model(
        args.checkpoint,
        args.overrides,
        device or args.device,
        trust_custom_code=args.trust_custom_code,
        subset=subset,
    )


def get_output_folder(loaded: TrainedModel, name: str) -> Path:
    """Return the default folder of the files that a command writes about a model.

    Args:
        loaded: the model.
        name: name of the folder.

    Returns:
        The folder in that of the run; in `runs/NAME` for a shipped model.
    """
    folder = loaded.file.parent
    return (Path("runs", folder.name) if folder.parent == MODELS_DIR else folder) / name
