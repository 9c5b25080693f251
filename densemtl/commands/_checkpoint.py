"""Trained model that the commands read from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from densemtl.engine.loading import TrainedModel


def add_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument `checkpoint`.

    Args:
        parser: parser of a command, changed in place.
    """
    parser.add_argument("checkpoint", type=Path, help="run folder or .safetensors weights file")


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
