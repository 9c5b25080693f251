"""Speed measurements of an experiment, and their table."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch
from rich.table import Table

from densemtl.analysis.speed.data_pipeline import measure_data
from densemtl.analysis.speed.network import (
    measure_evaluation,
    measure_inference,
    measure_step,
)
from densemtl.analysis.speed.target import make_benchmark_target
from densemtl.analysis.speed.timing import Measurement
from densemtl.config.experiment import ExperimentConfig
from densemtl.runtime.execution import make_execution_config
from densemtl.runtime.versions import get_versions

_NETWORK_MEASUREMENTS = {
    "step": measure_step,
    "evaluation": measure_evaluation,
    "inference": measure_inference,
}


def measure_speed(
    experiment: ExperimentConfig, parts: Sequence[str], repeats: int, device: str | None
) -> list[Measurement]:
    """Measure the selected parts of an experiment.

    Args:
        experiment: a validated configuration.
        parts: of "data", "step", "evaluation" and "inference".
        repeats: number of repetitions of each measurement.
        device: "cpu", "cuda" or similar; None uses a GPU if there is one.

    Returns:
        The measurements in a fixed order of parts.

    Raises:
        UserError: if the device is not available or files of the dataset are missing.
    """
    measurements = measure_data(experiment, repeats) if "data" in parts else []
    measure_fns = [measure for part, measure in _NETWORK_MEASUREMENTS.items() if part in parts]
    if measure_fns:
        execution = make_execution_config(experiment.train, device)
        target = make_benchmark_target(experiment, execution).with_chosen_layout()
        for measure in measure_fns:
            measurements += measure(target, repeats)
    return measurements


def make_speed_table(title: str, measurements: Sequence[Measurement]) -> Table:
    """Format measurements for the terminal.

    Args:
        title: title of the table.
        measurements: one per row.

    Returns:
        A table of `rich`.
    """
    table = Table(title=title)
    for name in ("part", "what", "value", "unit"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for measurement in measurements:
        table.add_row(
            measurement.part, measurement.name, f"{measurement.value:.4g}", measurement.unit
        )
    return table


def describe_machine(device: str | None) -> dict[str, str]:
    """Describe the machine and the software that measurements were made on.

    Args:
        device: "cpu", "cuda" or similar; None uses a GPU if there is one.

    Returns:
        CPU, GPU if one is used, number of threads, and versions of libraries.
    """
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    gpu = {"gpu": torch.cuda.get_device_name(name)} if name.startswith("cuda") else {}
    cpu = {"cpu": platform.processor() or platform.machine()}
    return {**cpu, **gpu, "threads": str(torch.get_num_threads()), **get_versions()}
