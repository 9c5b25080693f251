"""All measurements of an experiment, and their table."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch
from rich.table import Table

from densemtl.analysis.speed.data_pipeline import measure_data
from densemtl.analysis.speed.network import (
    make_benchmark_target,
    measure_evaluation,
    measure_inference,
    measure_step,
)
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
    """The parts asked for.

    Raises:
        UserError: a device that is not there, or data that is not.
    """
    measurements = measure_data(experiment, repeats) if "data" in parts else []
    measure_fns = [work for part, work in _NETWORK_MEASUREMENTS.items() if part in parts]
    if measure_fns:
        subject = make_benchmark_target(experiment, make_execution_config(experiment.train, device))
        for work in measure_fns:
            measurements += work(subject, repeats)
    return measurements


def make_speed_table(title: str, measurements: Sequence[Measurement]) -> Table:
    """A line a number."""
    table = Table(title=title)
    for name in ("part", "what", "value", "unit"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for measurement in measurements:
        table.add_row(
            measurement.part, measurement.name, f"{measurement.value:.4g}", measurement.unit
        )
    return table


def describe_machine(device: str | None) -> dict[str, str]:
    """What the numbers hold for."""
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    gpu = {"gpu": torch.cuda.get_device_name(name)} if name.startswith("cuda") else {}
    cpu = {"cpu": platform.processor() or platform.machine()}
    return {**cpu, **gpu, "threads": str(torch.get_num_threads()), **get_versions()}
