"""Compilation of a model for training."""

from __future__ import annotations

import torch._functorch.config
from torch import nn


def compile_model(model: nn.Module, *, keeps_graph: bool) -> None:
    """Compile the forward and backward passes of a model in place, when they run first.

    Args:
        model: the model.
        keeps_graph: whether a forward pass has several backward passes. By default, the first one
            of a compiled model reuses the memory of stored activations, which the next one needs;
            this is then disabled for the process.
    """
    if keeps_graph:
        torch._functorch.config.donated_buffer = False
    model.compile()
