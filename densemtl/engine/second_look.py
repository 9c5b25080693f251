"""The losses of a step's batches once more, after the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from densemtl.engine.precision import Precision
from densemtl.engine.randomness import random_state, set_random_state
from densemtl.losses.objective import objective
from densemtl.tasks.base import Task
from densemtl.types import Batch, Predictions


class SecondLook:
    """Forward passes of a step, to be repeated; made before the first of them.

    What differs between the two looks shall be the update alone: the network stays in training
    mode, with statistics of the batch and with the same random numbers, so that dropout drops the
    same. No trace is left: running statistics have not seen a batch twice, and random numbers go
    on as if nothing had been, so that a run differs from one that does not look by its weights
    alone.

    Args:
        model: the network.
        tasks: all that are learnt.
        precision: where and how it runs.
    """

    def __init__(self, model: nn.Module, tasks: Sequence[Task], precision: Precision) -> None:
        self._model, self._tasks, self._precision = model, tasks, precision
        self._random = random_state()

    @torch.no_grad()
    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """{task: mean loss over the step's batches}, given in the order of the first look."""
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        model = partial(functional_call, self._model, buffers)
        with self._same_random_numbers():
            looks = [self._look(model, batch) for batch in batches]
        return {task: torch.stack([look[task] for look in looks]).mean() for task in looks[0]}

    def _look(self, model: Callable[[Tensor], Predictions], batch: Batch) -> dict[str, Tensor]:
        batch = batch.to(self._precision.device)
        predictions = self._precision.run(model, batch.image)
        return objective(self._tasks, predictions, batch.targets).tasks

    @contextmanager
    def _same_random_numbers(self) -> Iterator[None]:
        now = random_state()
        set_random_state(self._random)
        try:
            yield
        finally:
            set_random_state(now)
