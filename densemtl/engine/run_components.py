"""Components of a run, and the number of steps that they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from densemtl.config.sections import InputConfig, TrainConfig
from densemtl.data.base import DenseDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.data.samplers import EpochSampler
from densemtl.distributed.collectives import get_world_size
from densemtl.engine.checkpoint_writer import CheckpointWriter
from densemtl.engine.optimizer import RunSchedule
from densemtl.engine.train_state import TrainState
from densemtl.engine.train_step import TrainStep
from densemtl.errors import DataError
from densemtl.tasks.base import Task
from densemtl.trackers.base import Tracker
from densemtl.types import Batch, ProtocolName
from densemtl.visualization.prediction_panels import PredictFn


@dataclass
class TrainingRun:
    """Run with all its components, ready to start or resume.

    Attributes:
        title: name of the run on the terminal.
        folder: the run folder, which receives all files.
        config_yaml: resolved configuration (YAML), saved with the weights.
        tasks: tasks that are evaluated; `train_step` may also train auxiliary tasks.
        train_step: the optimizer step.
        state: the state that training changes.
        schedule: the learning-rate schedule.
        train_loader: batches of the training split.
        val_loader: batches of the validation split.
        val_dataset: samples of the validation split, for images of predictions.
        input_config: the section `input` of the configuration.
        make_predict_fn: function that returns a prediction function of a model.
        protocol: name of the evaluation protocol.
        train_config: the section `train` of the configuration.
        trackers: trackers that receive the log.
        checkpoint_writer: writes the checkpoints of the state.
    """

    title: str
    folder: Path
    config_yaml: str
    tasks: Sequence[Task]
    train_step: TrainStep
    state: TrainState
    schedule: RunSchedule
    train_loader: ErrorForwardingDataLoader[Batch]
    val_loader: ErrorForwardingDataLoader[Batch]
    val_dataset: DenseDataset
    input_config: InputConfig
    make_predict_fn: Callable[[nn.Module], PredictFn]
    protocol: ProtocolName
    train_config: TrainConfig
    trackers: Sequence[Tracker] = ()
    checkpoint_writer: CheckpointWriter = field(default_factory=CheckpointWriter)

    @property
    def total_steps(self) -> int:
        """Number of optimizer steps of the whole run."""
        config = self.train_config
        if config.extensions:
            last = config.extensions[-1]
            return last.start_step + last.epochs * self.steps_per_epoch
        return count_initial_steps(config, self.steps_per_epoch)

    @property
    def extension_starts(self) -> list[int]:
        """Number of finished optimizer steps at which each extension begins."""
        return [extension.start_step for extension in self.train_config.extensions]

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps per epoch; images that do not fill a step are left out."""
        return count_steps_per_epoch(self.train_loader, self.train_config.grad_accum_steps)

    @property
    def images_per_step(self) -> int:
        """Number of images per optimizer step, on all ranks."""
        return get_global_batch_size(self.train_loader) * self.train_config.grad_accum_steps


def get_global_batch_size(loader: ErrorForwardingDataLoader[Batch]) -> int:
    """Return the number of images per batch on all ranks.

    Args:
        loader: loader of this rank.

    Returns:
        The batch size of the loader times the number of ranks.
    """
    return (loader.batch_size or 1) * get_world_size()


def count_initial_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """Return the number of optimizer steps of a run without its extensions.

    Args:
        config: the section `train` of the configuration.
        steps_per_epoch: number of optimizer steps per epoch.

    Returns:
        `steps` of the configuration, or the steps of its epochs.
    """
    return config.steps or (config.epochs or 1) * steps_per_epoch


def count_steps_per_epoch(loader: ErrorForwardingDataLoader[Batch], grad_accum_steps: int) -> int:
    """Return the number of optimizer steps per epoch.

    Args:
        loader: loader of the training split on this rank.
        grad_accum_steps: micro-batches per optimizer step.

    Returns:
        The number of complete steps, at least 1.

    Raises:
        DataError: if the training split is too small for one step.
    """
    assert isinstance(loader.sampler, EpochSampler)
    images, batch = loader.sampler.length, get_global_batch_size(loader)
    steps = images // batch // grad_accum_steps
    if steps == 0:
        raise DataError(
            f"{images} training images do not fill one step of {grad_accum_steps} batches of "
            f"{batch}: lower train.grad_accum_steps or loader.batch_size"
        )
    return steps
