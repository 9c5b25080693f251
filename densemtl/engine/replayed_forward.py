"""Additional forward passes over the batches of an optimizer step, without side effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.func import functional_call

from densemtl.runtime.rng_state import get_rng_state, set_rng_state
from densemtl.types import ModelInput, Predictions

ModelFn = Callable[..., Predictions]
"""Runs a model forward."""


class ReplayForward:
    """Repetition of the forward passes of an optimizer step.

    A replay gives the same predictions as the forward passes of the step, unless the weights have
    changed: the model stays in training mode and uses batch statistics and the same random numbers,
    so that dropout masks are equal. A replay has no side effects: it does not update running
    statistics, and restores the state of the random number generators.

    Create the object before the forward passes of the step, because it saves their random state.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._rng_state = get_rng_state()

    @contextmanager
    def session(self) -> Iterator[ModelFn]:
        """Start a replay.

        Yields:
            A function with the arguments of the model. Call it once for each batch of the step, in
            the same order.
        """
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}

        def forward(image: ModelInput, **options: Any) -> Predictions:
            predictions: Predictions = functional_call(self._model, buffers, image, options)
            return predictions

        current = get_rng_state()
        set_rng_state(self._rng_state)
        try:
            yield forward
        finally:
            set_rng_state(current)
