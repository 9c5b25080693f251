"""What the checks share: the device, the size of the experiments, and their construction."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from densemtl.analysis.speed.target import BenchmarkTarget, make_benchmark_target
from densemtl.config.experiment import ExperimentConfig, load_experiment
from densemtl.runtime.execution import make_execution_config

CONFIGS = Path(__file__).parents[2] / "configs"

TINY_NETWORK = CONFIGS / "nyud" / "resnet10t" / "hard_sharing.yaml"
"""Network of checks that do not depend on the size."""


class CheckError(Exception):
    """Error that a value is not the expected one."""


class SkippedCheckError(Exception):
    """Error that a check cannot run on this device."""


@dataclass(frozen=True)
class Context:
    """Device and size of all checks.

    Attributes:
        device: value of `--device`.
        small: whether to use tiny networks and images, to try the checks on a CPU.
        folder: empty folder for files.
    """

    device: str
    small: bool
    folder: Path

    @property
    def on_gpu(self) -> bool:
        """Whether the device is an NVIDIA or AMD GPU."""
        return self.device.startswith("cuda")

    def load(self, file: Path, *overrides: str) -> ExperimentConfig:
        """Load an experiment that needs no data and no pretrained weights.

        Args:
            file: configuration.
            overrides: `key=value` changes.

        Returns:
            The experiment; with `small`, it has a tiny backbone and input, and batches of 2 images.
        """
        common = ["backbone.pretrained=false", "baselines=none", "init_from=none"]
        small = ["backbone.name=test_resnet", "input.size=[64,96]", "loader.batch_size=2"]
        return load_experiment(file, [*common, *overrides, *(small if self.small else [])])

    def make_target(self, experiment: ExperimentConfig) -> BenchmarkTarget:
        """Build the network of an experiment and a random batch on the device."""
        torch.manual_seed(0)
        execution = make_execution_config(experiment.train, self.device)
        return make_benchmark_target(experiment, execution)

    def synchronize(self) -> None:
        """Wait until the GPU has finished."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def time(self, work: Callable[[], object], repeats: int) -> float:
        """Return the mean seconds of some work after one warm-up, with one wait at the end."""
        work()
        self.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        self.synchronize()
        return (time.perf_counter() - started) / repeats


Check = Callable[[Context], str]
"""Function that returns what it measured, and raises an error if a value is wrong."""


def require(condition: bool, message: str) -> None:
    """Raise a `CheckError` unless a condition holds.

    Args:
        condition: what must hold.
        message: message of the error.
    """
    if not condition:
        raise CheckError(message)
