"""Batches of the steps of a training, which are read ahead over the end of epochs."""

from __future__ import annotations

from collections.abc import Iterator

from densemtl.data.samplers import EpochSampler
from densemtl.engine.run_components import TrainingRun
from densemtl.types import Batch


class TrainBatches:
    """Batches of the optimizer steps of a run.

    When the last batch of an epoch is taken, worker processes begin to read the next epoch. Its
    first batches are then ready after the validation, so that a GPU does not wait for them.

    Args:
        run: the run, of which the loader and the sizes are used. Its loader must not be iterated
            elsewhere in the meantime.
    """

    def __init__(self, run: TrainingRun) -> None:
        sampler = run.train_loader.sampler
        assert isinstance(sampler, EpochSampler)
        self._sampler, self._loader = sampler, run.train_loader
        self._steps_per_epoch, self._images_per_step = run.steps_per_epoch, run.images_per_step
        self._batches_per_step = run.train_config.grad_accum_steps
        self._batches: Iterator[Batch] = iter(())
        self._position: tuple[int, int] | None = None  # epoch and step that are read next

    def iterate(
        self, epoch: int, steps_done: int, num_steps: int, *, read_ahead: bool = False
    ) -> Iterator[list[Batch]]:
        """Iterate over steps of one epoch.

        Args:
            epoch: number of the epoch, which determines the order and the augmentation of images.
            steps_done: number of steps of the epoch that are left out.
            num_steps: number of steps, at most to the end of the epoch.
            read_ahead: begin to read the next epoch at the end of this one.

        Yields:
            The batches of a step, as many as `train.grad_accum_steps`.
        """
        for step in range(steps_done, steps_done + num_steps):
            if self._position != (epoch, step):
                self._start(epoch, step)
            batches = [next(self._batches) for _ in range(self._batches_per_step)]
            self._position = (epoch, step + 1)
            if read_ahead and step + 1 == self._steps_per_epoch:
                self._start(epoch + 1, 0)
            yield batches

    def _start(self, epoch: int, step: int) -> None:
        self._sampler.epoch, self._sampler.start_index = epoch, step * self._images_per_step
        self._batches = iter(self._loader)
        self._position = (epoch, step)
