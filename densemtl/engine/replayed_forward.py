"""Additional forward passes over the batches of a step that leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from densemtl.runtime.rng_state import get_rng_state, set_rng_state
from densemtl.types import Predictions

ModelFn = Callable[..., Predictions]
"""Runs a model forward."""


class ReplayForward:
    """Replays the forward passes of an optimizer step; created before the step runs forward.

    A replay differs from the step's own forward passes only if the weights do: the model stays in
    training mode, with batch statistics and the same random numbers, so that dropout drops the
    same. A replay leaves no trace: running statistics are not updated twice, and random numbers
    continue as if there had been none.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._rng_state = get_rng_state()

    @contextmanager
    def session(self) -> Iterator[ModelFn]:
        """Yield a function that runs the model like the step does, batch after batch."""
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}

        def forward(image: Tensor, **options: Any) -> Predictions:
            predictions: Predictions = functional_call(self._model, buffers, image, options)
            return predictions

        current = get_rng_state()
        set_rng_state(self._rng_state)
        try:
            yield forward
        finally:
            set_rng_state(current)
