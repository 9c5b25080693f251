"""MMoE: multi-gate mixture of experts (Ma et al., KDD 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.config.constraints import SmallPositiveInt
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.gated_experts import MixtureOfExperts
from densemtl.layers.mixture_of_experts import ExpertRouting, name_experts
from densemtl.tasks.base import Task
from densemtl.types import SHARED


class MMoE(MixtureOfExperts):
    """Multi-gate mixture of experts: shared experts, and one gate over them per task.

    Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts", KDD 2018, eq. 6 to 8. Each level of the feature pyramid has its own experts
    (bottleneck blocks) and gates. All experts are initialized as the identity, so that training
    starts as with hard sharing.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        experts: number of experts per level.
        options: options of `MixtureOfExperts`.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     {"name": "mmoe", "experts": 2}, backbone="test_resnet", tasks=["depth", "edge"]
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        experts: SmallPositiveInt = 4,
        **options: Any,
    ) -> None:
        names = name_experts(SHARED, experts)
        layer = ExpertRouting(
            expert_inputs=dict.fromkeys(names, SHARED),
            gate_experts={task.name: names for task in tasks},
        )
        super().__init__(make_backbone, make_head, tasks, [layer], **options)
