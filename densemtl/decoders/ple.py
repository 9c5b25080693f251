"""PLE: progressive layered extraction (Tang et al., RecSys 2020, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.config.constraints import SmallNonNegativeInt, SmallPositiveInt
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.cgc import make_cgc_routing
from densemtl.decoders.gated_experts import MixtureOfExperts
from densemtl.layers.mixture_of_experts import ExpertRouting
from densemtl.tasks.base import Task
from densemtl.types import SHARED


class PLE(MixtureOfExperts):
    """Progressive layered extraction: stacked CGC layers.

    Tang et al., "Progressive Layered Extraction (PLE)", RecSys 2020, section 4.2. The output of the
    gate of a task is the input of the experts and of the gate of this task in the next layer. In
    all layers except the last one, a shared gate mixes all experts; its output is the input of the
    shared experts in the next layer (eq. 6). With one layer, PLE is CGC.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        layers: number of layers at each level of the feature pyramid.
        shared_experts: number of experts per layer and level that all tasks use.
        task_experts: number of additional experts per layer and level of each task; may be 0.
        options: options of `MixtureOfExperts`.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model("ple", backbone="test_resnet", tasks=["depth", "edge"])
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
        layers: SmallPositiveInt = 2,
        shared_experts: SmallPositiveInt = 1,
        task_experts: SmallNonNegativeInt = 1,
        **options: Any,
    ) -> None:
        last = make_cgc_routing(tasks, shared_experts, task_experts)
        every = tuple(sorted(last.expert_inputs))  # independent of the order of tasks
        below = ExpertRouting(last.expert_inputs, {**last.gate_experts, SHARED: every})
        routings = [*[below] * (layers - 1), last]
        super().__init__(make_backbone, make_head, tasks, routings, **options)
