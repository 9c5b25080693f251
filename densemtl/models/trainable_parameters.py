"""Numbers of trained parameters of a model, as publications on adapters report them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from densemtl.adapters.low_rank import Adapter
from densemtl.backbones.backbone import Backbone
from densemtl.models.multi_task_model import MultiTaskModel


def count_trainable(model: MultiTaskModel) -> dict[str, int]:
    """Count the trained parameters of the adapters, of the rest of the backbone, and of the rest.

    MTLoRA (Agiza et al., CVPR 2024) and TADFormer (Baek et al., CVPR 2025) report the sum of all
    numbers. DiTASK (Mantri et al., CVPR 2025) reports the sum without `decoder`.

    Args:
        model: the model, on any device.

    Returns:
        {"adapters", "backbone", "decoder": number of trained parameters}. `backbone` are the other
        parameters of all backbones, `decoder` those of decoder and heads.

    Example:
        >>> import densemtl
        >>> backbone = {"name": "test_vit", "adapters": {"rank": 4, "train": ["norm"]}}
        >>> model = densemtl.create_model(
        ...     "hard_sharing", backbone=backbone, head="linear", tasks=["depth"]
        ... )
        >>> count_trainable(model)
        {'adapters': 21504, 'backbone': 1536, 'decoder': 257}
    """
    adapters = _list_trained(model, Adapter)
    backbone = _list_trained(model, Backbone) - adapters
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    parts = {"adapters": adapters, "backbone": backbone, "decoder": trained - backbone - adapters}
    return {name: _count(parameters) for name, parameters in parts.items()}


def _list_trained(model: nn.Module, kind: type[nn.Module]) -> set[nn.Parameter]:
    """Return the trained parameters of the modules of a type."""
    return {
        parameter
        for module in model.modules()
        if isinstance(module, kind)
        for parameter in module.parameters()
        if parameter.requires_grad
    }


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
