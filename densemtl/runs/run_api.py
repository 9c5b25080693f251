"""Functions that train and evaluate like the commands, with the same configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.config.experiment import load_experiment
from densemtl.config.shipped_configs import get_default_folder
from densemtl.distributed.session import distributed_session
from densemtl.engine.loading import load_trained_model
from densemtl.io.paths import parse_path
from densemtl.results.results import Results
from densemtl.runs.evaluate_run import evaluate_model
from densemtl.runs.extension import make_extension
from densemtl.runs.train_run import train_experiment
from densemtl.types import Split

Overrides = Mapping[str, Any] | Sequence[str]
"""{configuration key: value}, or texts `key=value` as on the command line."""


def train(
    config: str | Path,
    overrides: Overrides = (),
    *,
    output: str | Path | None = None,
    device: str | None = None,
    max_steps: int | None = None,
    extend: int | None = None,
    extend_lr: float | None = None,
) -> Results:
    """Train a model and, if configured, the single-task baselines, like `densemtl train`.

    Another call with the same arguments resumes a run that was stopped, or returns the results of
    one that is finished.

    Args:
        config: configuration file, or the name of a shipped one, such as "synthetic/quick".
        overrides: values that replace those of the configuration.
        output: run folder; None selects runs/CONFIG.
        device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one.
        max_steps: number of optimizer steps after which each run stops; None trains to the end.
        extend: number of epochs by which the finished run is extended; None extends nothing.
        extend_lr: factor of the learning rates of the extension, whose schedule starts again; None
            is 1.

    Returns:
        The results of the best validated weights, as in `results.json`.

    Raises:
        UserError: if the configuration or the data is wrong; the message is the same as on the
            command line.

    Example:
        >>> import densemtl
        >>> results = densemtl.train(  # doctest: +SKIP
        ...     "nyud/resnet50/hard_sharing", {"data.root": "/data/NYUD_MT"}
        ... )
        >>> results.tasks["depth"].value  # doctest: +SKIP
        0.61
    """
    file = parse_path(config)
    folder = parse_path(output) if output is not None else get_default_folder(file)
    with distributed_session(device):
        experiment = load_experiment(file, format_overrides(overrides))
        extension = make_extension(extend, extend_lr)
        return train_experiment(experiment, folder, device, max_steps, extension)


def evaluate(
    checkpoint: str | Path,
    overrides: Overrides = (),
    *,
    split: Split = "val",
    device: str | None = None,
    trust_custom_code: bool = False,
) -> Results:
    """Evaluate a trained model with all metrics of its protocol, like `densemtl evaluate`.

    Args:
        checkpoint: run folder or .safetensors weights file.
        overrides: values that replace those of the saved configuration, such as `data.root`.
            `tasks` may list some of the tasks, and data may lack labels of some.
        split: "train" or "val".
        device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one.
        trust_custom_code: import the custom classes that the saved configuration names.

    Returns:
        The results of the whole split.

    Raises:
        UserError: if the weights or the data cannot be read.

    Example:
        >>> import densemtl
        >>> results = densemtl.evaluate("runs/synthetic/quick")  # doctest: +SKIP
        >>> results.tasks["semseg"].metrics["mIoU"]  # doctest: +SKIP
        23.19
    """
    with distributed_session(device):
        trained = load_trained_model(
            parse_path(checkpoint),
            format_overrides(overrides),
            device,
            trust_custom_code=trust_custom_code,
            subset=True,
        )
        return evaluate_model(trained, split)


def format_overrides(overrides: Overrides) -> list[str]:
    """Format overrides as on the command line.

    Args:
        overrides: {configuration key: value}, or texts `key=value`.

    Returns:
        Texts `key=value`.

    Example:
        >>> format_overrides({"optim.lr": 0.001, "tasks": ["semseg"], "data.root": Path("/data")})
        ['optim.lr=0.001', 'tasks=["semseg"]', 'data.root="/data"']
    """
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={json.dumps(value, default=str)}" for key, value in overrides.items()]
