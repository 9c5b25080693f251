"""Numbers of trained parameters of a model, as publications on adapters report them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from densemtl.adapters.low_rank import Adapter
from densemtl.adapters.task_streams import StreamLinear
from densemtl.backbones.backbone import Backbone
from densemtl.models.multi_task_model import MultiTaskModel


def count_trainable(model: MultiTaskModel) -> dict[str, int]:
    """Count the trained parameters of the adapters, of the rest of the backbone, and of the rest.

    MTLoRA (Agiza et al., CVPR 2024) and TADFormer (Baek et al., CVPR 2025) report the sum of all
    numbers. DiTASK (Mantri et al., CVPR 2025) reports the sum without `decoder`.

    Args:
        model: the model, on any device.

    Returns:
        {part: number of trained parameters} of four parts: `adapters` of all tasks together,
        `task_adapters` of single tasks with their filters, the rest of all backbones (`backbone`),
        and decoder and heads (`decoder`).

    Example:
        >>> import densemtl
        >>> backbone = {"name": "test_vit", "adapters": {"rank": 4, "train": ["norm"]}}
        >>> model = densemtl.create_model(
        ...     "hard_sharing", backbone=backbone, head="linear", tasks=["depth"]
        ... )
        >>> count_trainable(model)
        {'adapters': 21504, 'task_adapters': 0, 'backbone': 1536, 'decoder': 257}
    """
    modules = list(model.modules())
    every = _list_trained([model])
    backbone = _list_trained(module for module in modules if isinstance(module, Backbone))
    adapters = _list_trained(module for module in modules if isinstance(module, Adapter))
    streams = [module for module in modules if isinstance(module, StreamLinear)]
    of_tasks = _list_trained(
        part for stream in streams for part in (stream.task_adapters, stream.filter_low) if part
    )
    parts = {
        "adapters": adapters - of_tasks,
        "task_adapters": of_tasks,
        "backbone": backbone - adapters - of_tasks,
        "decoder": every - backbone,
    }
    return {name: _count(parameters) for name, parameters in parts.items()}


def _list_trained(modules: Iterable[nn.Module]) -> set[nn.Parameter]:
    return {
        parameter
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad
    }


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
