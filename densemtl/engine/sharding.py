"""Shard a model over ranks (FSDP2)."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from densemtl.backbones.backbone import Backbone
from densemtl.balancing.base import Balancer, LossWeighting
from densemtl.config.sections import TrainConfig
from densemtl.errors import ConfigError, ModelError


def check_fsdp_compatible(config: TrainConfig, balancer: Balancer) -> None:
    """Check that a run needs neither full gradients nor full weights outside its training steps.

    Raises:
        ConfigError: it does; names the setting to change.
    """
    conflicts = {
        "train.amp=fp16: choose bf16": config.amp == "fp16",
        "train.grad_similarity_every: set it to 0": config.grad_similarity_every > 0,
        "balancing by gradients: choose a rule for losses": not isinstance(balancer, LossWeighting),
        "balancing by a second look at a batch: choose another rule": (
            balancer.needs_post_step_losses
        ),
    }
    for setting, conflicting in conflicts.items():
        if conflicting:
            raise ConfigError(f"train.fsdp: a model in shards does not go with {setting}")


def apply_fsdp(model: nn.Module) -> None:
    """Keep only this rank's shard of each parameter, which is gathered when it is used.

    The blocks of the backbone's stages are gathered one by one. Everything else is gathered at
    once, including a backbone that cannot be split into stages.
    """
    model.to(memory_format=torch.contiguous_format)  # FSDP2 accepts no other; images keep theirs
    for backbone in [module for module in model.modules() if isinstance(module, Backbone)]:
        for module in _list_blocks(backbone):
            fully_shard(module)
    fully_shard(model)
    # Logits are cropped to the image's size, which is a view, but nothing writes to them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    register_fsdp_forward_method(model, "sharing_weights")


def _list_blocks(backbone: Backbone) -> list[nn.Module]:
    try:
        stages = [backbone.get_stage_modules(index) for index in range(len(backbone.feature_info))]
    except ModelError:
        return []
    return [module for modules in stages for module in modules if list(module.parameters())]
