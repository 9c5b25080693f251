"""Run folder: its configuration, and choices that depend on the hardware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from densemtl.config.experiment import ExperimentConfig, parse_saved_experiment
from densemtl.config.input_paths import CONFIG
from densemtl.distributed.collectives import is_main_process
from densemtl.errors import ConfigError
from densemtl.io.atomic import atomic_write
from densemtl.runs.class_weights import keep_class_weights
from densemtl.runtime.execution import AUTOCAST_DTYPES, ExecutionConfig
from densemtl.runtime.hardware import (
    has_native_bf16,
    resolve_amp,
    warn_if_emulated,
)
from densemtl.runtime.progress_bar import print_message

AUTOMATIC_KEYS = ("amp", "channels_last")
"""Keys of the section `train` that may be "auto"."""


def reserve_run_dir(folder: Path, experiment: ExperimentConfig) -> ExperimentConfig:
    """Check that the folder contains no other experiment.

    The experiment may extend that of the folder, and its extensions need not be repeated.

    Args:
        folder: the run folder; it may be absent.
        experiment: the experiment to start or resume in it.

    Returns:
        The experiment, with the automatic choices that the run made when it was started, and with
        its extensions.

    Raises:
        ConfigError: if the folder contains another experiment; names the values that differ.
    """
    file = folder / CONFIG
    if not file.exists():
        return experiment
    saved = parse_saved_experiment(file.read_text(encoding="utf-8", errors="replace"), file)
    resumed = _keep_choices(experiment, saved)
    compared = resumed
    if resumed.train.extensions[:-1] == saved.train.extensions:  # one more extension
        compared = resumed.with_train(extensions=saved.train.extensions)
    differences = list(_find_differences(_list_compared(saved), _list_compared(compared)))
    if differences:
        raise ConfigError(
            f"{folder}: holds another experiment; {'; '.join(differences[:4])}: "
            f"choose another --output, or remove the folder"
        )
    return resumed


def write_config(folder: Path, experiment: ExperimentConfig) -> None:
    """Write the resolved configuration into the run folder, on the main process only.

    Args:
        folder: the run folder.
        experiment: the experiment without automatic choices.
    """
    if is_main_process():
        with atomic_write(folder / CONFIG) as tmp_path:
            tmp_path.write_text(experiment.to_yaml(), encoding="utf-8")


def _keep_choices(experiment: ExperimentConfig, saved: ExperimentConfig) -> ExperimentConfig:
    choices = {
        key: getattr(saved.train, key)
        for key in AUTOMATIC_KEYS
        if getattr(experiment.train, key) == "auto"
    }
    if not experiment.train.extensions:
        choices["extensions"] = saved.train.extensions
    return keep_class_weights(experiment.with_train(**choices), saved)


def _list_compared(experiment: ExperimentConfig) -> dict[str, Any]:
    """Return everything that must stay the same, including the weights of teachers."""
    teachers = experiment.model_dump(mode="json", include={"teachers"})
    return {**experiment.to_semantic_dict(), **teachers}


def _find_differences(saved: Any, current: Any, path: str = "") -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(current, dict):
        for key in sorted({*saved, *current}):
            yield from _find_differences(
                saved.get(key), current.get(key), f"{path}.{key}".lstrip(".")
            )
    elif saved != current:
        yield f"{path} is {saved} there, {current} here"


def choose_amp(
    experiment: ExperimentConfig, folder: Path, execution: ExecutionConfig
) -> tuple[ExperimentConfig, ExecutionConfig]:
    """Resolve `train.amp: auto`, and print the choice.

    Args:
        experiment: the experiment.
        folder: the run folder; a run that is resumed there keeps its autocast type.
        execution: device of the training.

    Returns:
        The experiment with the resolved value, which is part of its configuration hash, and the
        execution configuration with the autocast type.

    Raises:
        ConfigError: if the folder contains another experiment.
    """
    device = execution.device
    amp = resolve_amp(reserve_run_dir(folder, experiment).train.amp, device)
    if experiment.train.amp == "auto":
        has = "has" if has_native_bf16(device) else "has no"
        print_message(f"train.amp: {amp} (this {device.type.upper()} {has} bfloat16 instructions)")
        warn_if_emulated(amp, device)  # a resumed run keeps bf16
    return experiment.with_train(amp=amp), replace(
        execution, autocast_dtype=AUTOCAST_DTYPES.get(amp)
    )
