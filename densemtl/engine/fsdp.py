"""A model, its gradients and its optimiser's state in shards, one a rank: torch's FSDP2.

On disk nothing is in shards, so that a run goes on with any number of ranks, sharded or not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from densemtl.balancing.base import Balancer, LossWeighting
from densemtl.errors import ConfigError, ModelError
from densemtl.models.backbone import Backbone
from densemtl.settings import TrainSettings


def check_shard(settings: TrainSettings, balancer: Balancer) -> None:
    """Whether a run needs neither whole gradients nor whole weights beside its steps.

    Raises:
        ConfigError: it does.
    """
    unfit = {
        "train.amp=fp16: choose bf16": settings.amp == "fp16",
        "train.relations_every: set it to 0": settings.relations_every > 0,
        "balancing by gradients: choose a rule for losses": not isinstance(balancer, LossWeighting),
        "balancing by a second look at a batch: choose another rule": balancer.looks_again,
    }
    for what, asked in unfit.items():
        if asked:
            raise ConfigError(f"train.shard: a model in shards does not go with {what}")


def shard(model: nn.Module) -> None:
    """Keep of each parameter this rank's part alone, and gather it where it is used.

    Blocks of a backbone's stages are gathered one by one, and what is left all at once; so is a
    backbone that cannot be cut into stages.
    """
    model.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other; images keep theirs
    for backbone in [each for each in model.modules() if isinstance(each, Backbone)]:
        for module in _blocks(backbone):
            fully_shard(module)
    fully_shard(model)
    # Logits are cut to the image's size, which is a view, but nobody writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    register_fsdp_forward_method(model, "sharing")


def _blocks(backbone: Backbone) -> list[nn.Module]:
    try:
        stages = [backbone.stage_modules(index) for index in range(len(backbone.spec))]
    except ModelError:
        return []
    return [module for modules in stages for module in modules if list(module.parameters())]


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank has only a part of it."""
    return isinstance(tensor, DTensor)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Whole parameters on every rank, so that each may run the model as often as it likes."""
    parts = [each for each in model.modules() if isinstance(each, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    yield
    for part in parts:
        part.set_reshard_after_forward(part is not model, recurse=False)
        part.reshard()


def whole(state: Any) -> Any:
    """A nested state with whole tensors in place of shards; every rank takes part."""
    return tree_map_only(DTensor, lambda part: part.full_tensor(), state)


def parts_of(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Whole tensors by name -> as a module keeps them."""
    kept = module.state_dict()
    return {name: _part_of(tensor, kept.get(name)) for name, tensor in tensors.items()}


def optimizer_parts_of(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimiser's whole state -> each tensor as its parameter lies here, in shards or whole.

    Whether its kernels are fused stays as it is: what was saved may have had no shards.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    parts = {
        index: {name: _state_of(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    groups = [
        {**saved, "fused": own["fused"]} if "fused" in own else saved
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {"state": parts, "param_groups": groups}


def _state_of(value: Any, parameter: nn.Parameter) -> Any:
    """In the memory layout of the parameter besides, which fused kernels rely on."""
    if is_sharded(parameter) or getattr(value, "shape", None) != parameter.shape:
        return _part_of(value, parameter)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _part_of(value: Any, like: Any) -> Any:
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
