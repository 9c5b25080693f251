"""Seeing what modules inside a network give, without changing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from torch import Tensor, nn


def capture_outputs(modules: Sequence[nn.Module], run: Callable[[], object]) -> list[Tensor]:
    """What each module gave when `run` ran, detached; of several calls the last.

    Args:
        modules: each is called by `run` and gives one tensor.
        run: anything that calls them.
    """
    outputs: dict[int, Tensor] = {}

    def keep(module: nn.Module, _: object, output: Tensor) -> None:
        outputs[id(module)] = output.detach()

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(keep).remove)
        run()
    return [outputs[id(module)] for module in modules]
