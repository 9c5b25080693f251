"""Fully sharded data parallel training (FSDP2) of a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from densemtl.backbones.backbone import Backbone
from densemtl.balancing.base import Balancer, LossWeighting
from densemtl.config.sections import TrainConfig
from densemtl.errors import ConfigError, ModelError


def check_fsdp_compatible(
    config: TrainConfig, balancer: Balancer, sections: Sequence[str] = ()
) -> None:
    """Check that a run needs neither full gradients nor full weights outside its training steps.

    Args:
        config: the section `train` of the configuration.
        balancer: the balancing method.
        sections: sections of the configuration that need full weights.

    Raises:
        ConfigError: if it does; names the option to change.
    """
    conflicts = {
        "train.amp=fp16; use bf16": config.amp == "fp16",
        "train.grad_similarity_every; set it to 0": config.grad_similarity_every > 0,
        "gradient balancing; choose a loss-weighting method": (
            not isinstance(balancer, LossWeighting)
        ),
        "a balancing method that runs each batch again after the step; choose another method": (
            balancer.needs_post_step_losses
        ),
        f"{' and '.join(sections)}; remove it": bool(sections),
    }
    for option, conflicting in conflicts.items():
        if conflicting:
            raise ConfigError(f"train.fsdp: a sharded model does not support {option}")


def apply_fsdp(model: nn.Module) -> None:
    """Shard each parameter over the ranks; full parameters are gathered when they are used.

    The blocks of the backbone stages are gathered one by one. All other parameters are gathered
    together, including those of a backbone that cannot be split into stages.

    Args:
        model: the model, modified in place.
    """
    # FSDP2 accepts only contiguous parameters; the memory format of images does not change.
    model.to(memory_format=torch.contiguous_format)
    for backbone in [module for module in model.modules() if isinstance(module, Backbone)]:
        for module in _list_blocks(backbone):
            fully_shard(module)
    fully_shard(model)
    # Logits are cropped to the image size, which is a view, but nothing writes to them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    register_fsdp_forward_method(model, "sharing_weights")


def _list_blocks(backbone: Backbone) -> list[nn.Module]:
    try:
        stages = [backbone.get_stage_modules(index) for index in range(len(backbone.feature_info))]
    except ModelError:
        return []
    return [module for modules in stages for module in modules if list(module.parameters())]
