"""Sharded training: the model, its gradients and the optimizer state, by torch's FSDP2.

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


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this rank holds only a shard of a tensor."""
    return isinstance(tensor, DTensor)


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Keep the full parameters on every rank, so that ranks may run the model independently."""
    modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    yield
    for module in modules:
        module.set_reshard_after_forward(module is not model, recurse=False)
        module.reshard()


def gather_full(state: Any) -> Any:
    """Return a nested state with full tensors in place of shards; a collective operation."""
    return tree_map_only(DTensor, lambda shard: shard.full_tensor(), state)


def shard_like(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Shard full tensors like the entries of a module's state dict with the same names."""
    state = module.state_dict()
    return {name: _shard_tensor_like(tensor, state.get(name)) for name, tensor in tensors.items()}


def shard_optimizer_like(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Shard an optimizer's full state like its parameters on this rank.

    Keeps whether the optimizer's kernels are fused, since the saved state may have been unsharded.
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
    """Shard like the parameter, and use its memory layout, which fused kernels rely on."""
    if is_sharded(parameter) or getattr(value, "shape", None) != parameter.shape:
        return _shard_tensor_like(value, parameter)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _shard_tensor_like(value: Any, like: Any) -> Any:
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
