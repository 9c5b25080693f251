"""Activation checkpointing: inner activations of blocks are recomputed in the backward pass.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, section 4.
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
"""Modules whose members may be checkpointed blocks."""


def enable_grad_checkpointing(model: nn.Module) -> None:
    """Enable activation checkpointing of all blocks of a model in place.

    In training, only the input of every block is kept in memory, and the forward pass of each block
    runs a second time in the backward pass. Predictions, gradients and running statistics of
    normalization layers do not change. Blocks are residual blocks, transformer blocks, modules of
    HRNet and heads; see `find_blocks`.

    Args:
        model: the model, which is modified.

    Example:
        >>> import densemtl
        >>> model = densemtl.create_model("hard_sharing", backbone="test_resnet", tasks=["depth"])
        >>> enable_grad_checkpointing(model)
        >>> model(torch.zeros(2, 3, 64, 64)).logits["depth"].mean().backward()
    """
    for block in find_blocks(model):
        # Unlike a closure, a partial is copied together with its module. Models are copied for
        # weight averaging.
        block.forward = partial(_run_checkpointed, block)


def find_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Find the outermost members of containers that consist of several layers.

    Args:
        module: the module to search.

    Yields:
        The blocks; none contains another block or a `Backbone`.
    """
    for child in module.children():
        if isinstance(module, CONTAINERS) and _is_block(child):
            yield child
        else:
            yield from find_blocks(child)


def _is_block(module: nn.Module) -> bool:
    """Return whether a module has layers, but is no container of modules with layers."""
    inner = list(module.children())
    if any(isinstance(submodule, Backbone) for submodule in module.modules()):
        return False
    chained = isinstance(module, CONTAINERS) and any(any(child.children()) for child in inner)
    return bool(inner) and not chained


def _run_checkpointed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Run the forward pass of a block, checkpointed in training."""
    run = partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return run(*args, **kwargs)
    if torch.compiler.is_compiling():  # compiled code updates running statistics only once
        return checkpoint(run, *args, use_reentrant=False, **kwargs)
    contexts = partial(_make_contexts, block)
    return checkpoint(run, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _make_contexts(block: nn.Module) -> tuple[Any, Any]:
    """Return the contexts of the forward pass and of the recomputation."""
    return nullcontext(), _freeze_running_stats(block)


@contextmanager
def _freeze_running_stats(block: nn.Module) -> Iterator[None]:
    """Prevent the recomputation from updating running statistics a second time."""
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
