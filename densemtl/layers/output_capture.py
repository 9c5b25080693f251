"""Capture of the outputs of modules inside a network by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from torch import Tensor, nn


def capture_outputs(modules: Sequence[nn.Module], run: Callable[[], object]) -> list[Tensor]:
    """Return the output of each module during a run.

    Args:
        modules: modules that `run` calls and that return one tensor each.
        run: function that runs the network.

    Returns:
        One detached output per module, that of its last call.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.ReLU(), nn.Flatten())
        >>> capture_outputs([net[0]], lambda: net(torch.tensor([[[-1.0, 2.0]]])))
        [tensor([[[0., 2.]]])]
    """
    outputs: dict[int, Tensor] = {}

    def save_output(module: nn.Module, _: object, output: Tensor) -> None:
        outputs[id(module)] = output.detach()

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(save_output).remove)
        run()
    return [outputs[id(module)] for module in modules]
