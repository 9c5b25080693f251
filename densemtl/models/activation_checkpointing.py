"""Activation checkpointing: blocks whose insides are computed again in the backward pass.

Chen et al. 2016, "Training deep nets with sublinear memory cost", section 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from densemtl.backbones.backbone import Backbone

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def enable_grad_checkpointing(model: nn.Module) -> None:
    """Keep of every block's activations only what enters it, in training.

    A block is what a chain of a network is made of: residual blocks, transformer blocks, HRNet's
    modules, heads. Predictions, gradients and the statistics of normalisation stay the same; each
    block's forward pass runs twice.
    """
    for block in find_blocks(model):
        # A partial, unlike a closure, is copied with its module: averages are copies of models.
        block.forward = partial(_run_checkpointed, block)


def find_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of chains that are made of several layers, backbones aside."""
    for child in module.children():
        if isinstance(module, CONTAINERS) and _is_block(child):
            yield child
        else:
            yield from find_blocks(child)


def _is_block(module: nn.Module) -> bool:
    inner = list(module.children())
    if any(isinstance(submodule, Backbone) for submodule in module.modules()):
        return False
    chained = isinstance(module, CONTAINERS) and any(any(child.children()) for child in inner)
    return bool(inner) and not chained


def _run_checkpointed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    run = partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return run(*args, **kwargs)
    if torch.compiler.is_compiling():  # which writes to running statistics once by itself
        return checkpoint(run, *args, use_reentrant=False, **kwargs)
    contexts = partial(_make_contexts, block)
    return checkpoint(run, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _make_contexts(block: nn.Module) -> tuple[Any, Any]:
    """Of the forward pass, and of its repetition."""
    return nullcontext(), _freeze_running_stats(block)


@contextmanager
def _freeze_running_stats(block: nn.Module) -> Iterator[None]:
    """Running statistics count a batch once, however often it runs."""
    norms = [module for module in block.modules() if isinstance(module, _NormBase)]
    before = [(norm, norm.momentum, _clone_num_batches_tracked(norm)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count


def _clone_num_batches_tracked(norm: _NormBase) -> Tensor | None:
    return None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
