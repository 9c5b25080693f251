"""Blocks of the stages of a network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def list_blocks(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """List the blocks of a stage.

    Args:
        modules: modules of the stage, which run one after the other. The blocks are the children of
            a chain of blocks, also if it is named `blocks` inside a module, or the modules
            themselves. Single layers are no blocks.

    Returns:
        The blocks in order of execution.
    """
    blocks: list[nn.Module] = []
    for module in modules:
        inner = getattr(module, "blocks", module)
        if isinstance(inner, nn.Sequential | nn.ModuleList) and len(inner) > 0:
            blocks += inner.children()
        elif any(module.children()):
            blocks.append(module)
    return blocks


def list_chain(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """List the modules of a stage, with the blocks of a stage of Swin one by one.

    Args:
        modules: modules of the stage. A stage of Swin has the children `downsample` and `blocks`.

    Returns:
        Modules that run one after the other.
    """
    chain = []
    for module in modules:
        children = dict(module.named_children())
        if list(children) == ["downsample", "blocks"]:
            chain += [children["downsample"], *children["blocks"].children()]
        else:
            chain.append(module)
    return chain
