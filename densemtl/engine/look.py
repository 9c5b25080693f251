"""The losses of a step's batches without a trace: before it, or once more after the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from densemtl.engine.parts import Part
from densemtl.engine.randomness import random_state, set_random_state
from densemtl.losses.objective import Losses
from densemtl.types import Predictions

Model = Callable[..., Predictions]


class Look:
    """Forward passes of a step besides its own; made before the first of these.

    What differs between two looks shall be the weights alone: the network stays in training mode,
    with statistics of the batch and with the same random numbers, so that dropout drops the same.
    No trace is left: running statistics have not seen a batch twice, and random numbers go on as if
    nothing had been, so that a run differs from one that does not look by what follows alone.

    Args:
        model: the network.
        objective: runs it on a part.
    """

    def __init__(self, model: nn.Module, objective: Callable[[Model, Part], Losses]) -> None:
        self._model, self._objective = model, objective
        self._random = random_state()

    def losses(self, parts: Sequence[Part]) -> Iterator[Losses]:
        """Of one after the other, given in the order of the step; with a graph where it is on."""
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}

        def model(image: Tensor, **options: Any) -> Predictions:
            predictions: Predictions = functional_call(self._model, buffers, image, options)
            return predictions

        with self._same_random_numbers():
            for part in parts:
                yield self._objective(model, part)

    @torch.no_grad()
    def joined(self, parts: Sequence[Part]) -> Mapping[str, Tensor]:
        """{task: loss of the joined batch}."""
        told = [losses.tasks for losses in self.losses(parts)]
        return {task: torch.stack([each[task] for each in told]).mean() for task in told[0]}

    @contextmanager
    def _same_random_numbers(self) -> Iterator[None]:
        now = random_state()
        set_random_state(self._random)
        try:
            yield
        finally:
            set_random_state(now)
