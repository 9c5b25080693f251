"""Conversion between full and sharded (FSDP2) models, gradients and optimizer states.

Checkpoints are never sharded, so that a run can resume on any number of ranks, sharded or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from densemtl.distributed.collectives import is_main_process

ShardedModule = FSDPModule
"""Module whose parameters are sharded."""


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this rank holds only a shard of a tensor."""
    return isinstance(tensor, DTensor)


def get_local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this rank holds, which shares its memory.

    Args:
        tensor: a tensor that may be sharded.

    Returns:
        The shard of this rank; the tensor itself if it is not sharded.
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Keep the full parameters on every rank, so that ranks can run the model independently.

    Args:
        model: the model; nothing is done if it is not sharded.

    Yields:
        Nothing.
    """
    modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    yield
    for module in modules:
        module.set_reshard_after_forward(module is not model, recurse=False)
        module.reshard()


def list_sharded_modules(model: nn.Module) -> list[ShardedModule]:
    """List the modules that gather their parameters.

    A module may hold full parameters after a forward pass, until its `reshard` is called.

    Args:
        model: the model.

    Returns:
        The modules; none if the model is not sharded.
    """
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def gather_full(state: Any) -> Any:
    """Replace sharded tensors by full tensors; all ranks must call this function.

    Args:
        state: tensor or nested lists, tuples and dictionaries of tensors.

    Returns:
        The state with full tensors.
    """
    return tree_map_only(DTensor, lambda shard: shard.full_tensor(), state)


def collect_on_main(state: Any, *, copy: bool, pinned: bool = False) -> Any:
    """Collect full tensors in the memory of the main process; all ranks must call this function.

    Sharded tensors are gathered one after another and moved to the CPU, so that a GPU never holds
    more than one full tensor.

    Args:
        state: tensor or nested lists, tuples and dictionaries of tensors.
        copy: whether other tensors are copied to the CPU too, so that later changes do not affect
            the result. Otherwise they are returned as they are.
        pinned: whether copies from a GPU go to pinned memory asynchronously. They must not be read
            before the current stream has finished them.

    Returns:
        The state with full tensors; on other ranks, with None in place of sharded tensors.
    """

    def collect(tensor: Tensor) -> Tensor | None:
        sharded = isinstance(tensor, DTensor)
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if not is_main_process():
            return None if sharded else tensor
        return _copy_to_cpu(full.detach(), pinned) if copy or sharded else tensor

    return tree_map_only(Tensor, collect, state)


def _copy_to_cpu(tensor: Tensor, pinned: bool) -> Tensor:
    """Copy a tensor with its memory layout."""
    pinned = pinned and tensor.is_cuda
    result = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
    return result.copy_(tensor, non_blocking=pinned)


def shard_like(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Shard full tensors like the entries of the state dict of a module with the same names.

    Args:
        tensors: {name: full tensor}.
        module: the module whose sharding is used.

    Returns:
        {name: tensor}, sharded where the entry of the module is.
    """
    state = module.state_dict()
    return {name: _shard_tensor_like(tensor, state.get(name)) for name, tensor in tensors.items()}


def shard_optimizer_like(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Shard a full optimizer state like the parameters on this rank.

    The option `fused` of the optimizer is kept, because it may differ between the saved run and
    this run if only one of them is sharded.

    Args:
        state: full state dict of an optimizer.
        optimizer: the optimizer that the state will be loaded into.

    Returns:
        A state dict for `optimizer.load_state_dict`.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = {
        index: {name: _shard_state_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    groups = [
        {**saved, "fused": current["fused"]} if "fused" in current else saved
        for saved, current in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {"state": sharded, "param_groups": groups}


def _shard_state_like(value: Any, parameter: nn.Parameter) -> Any:
    """Shard a value like its parameter, with the same memory layout, as fused kernels require."""
    if is_sharded(parameter) or getattr(value, "shape", None) != parameter.shape:
        return _shard_tensor_like(value, parameter)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _shard_tensor_like(value: Any, like: Any) -> Any:
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
