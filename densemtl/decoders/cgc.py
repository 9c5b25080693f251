"""CGC: customized gate control (Tang et al., RecSys 2020, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.config.constraints import SmallNonNegativeInt, SmallPositiveInt
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.gated_experts import MixtureOfExperts
from densemtl.layers.mixture_of_experts import ExpertRouting, name_experts
from densemtl.tasks.base import Task
from densemtl.types import SHARED


class CGC(MixtureOfExperts):
    """Customized gate control: shared experts and task-specific experts, mixed by task gates.

    Tang et al., "Progressive Layered Extraction (PLE)", RecSys 2020, section 4.1, eq. 2 to 5. The
    gate of a task mixes the shared experts and the experts of the task. Each level of the feature
    pyramid has its own experts (bottleneck blocks) and gates. All experts are initialized as the
    identity, so that training starts as with hard sharing.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        shared_experts: number of experts per level that all tasks use.
        task_experts: number of additional experts per level of each task; may be 0.
        options: options of `MixtureOfExperts`.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model("cgc", backbone="test_resnet", tasks=["depth", "edge"])
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
        shared_experts: SmallPositiveInt = 1,
        task_experts: SmallNonNegativeInt = 1,
        **options: Any,
    ) -> None:
        layer = make_cgc_routing(tasks, shared_experts, task_experts)
        super().__init__(make_backbone, make_head, tasks, [layer], **options)


def make_cgc_routing(
    tasks: Sequence[Task], shared_experts: int, task_experts: int
) -> ExpertRouting:
    """Create the connections of one CGC layer.

    Args:
        tasks: tasks that have experts and a gate.
        shared_experts: number of shared experts.
        task_experts: number of experts of each task.

    Returns:
        Connections in which the gate of each task mixes the shared experts and the task's experts.
    """
    shared = name_experts(SHARED, shared_experts)
    expert_names = {task.name: name_experts(task.name, task_experts) for task in tasks}
    reads = {expert: task for task, experts in expert_names.items() for expert in experts}
    return ExpertRouting(
        expert_inputs={**dict.fromkeys(shared, SHARED), **reads},
        gate_experts={task: (*shared, *experts) for task, experts in expert_names.items()},
    )
