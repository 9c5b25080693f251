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
    """Some experts are shared and some a task's own; its gate mixes both kinds (eq. 2 to 5).

    Every level of the pyramid has its own experts, bottlenecks, and gates. All experts are the
    identity at first, so that training starts as hard sharing does.

    Args:
        make_backbone: makes the one backbone.
        make_head: makes each task's head.
        tasks: the run's.
        shared_experts: how many all tasks use, a level.
        task_experts: how many each task has besides, a level; may be 0.
        options: see `MixtureOfExperts`.
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
    """Each task's gate mixes the shared experts and its own."""
    shared = name_experts(SHARED, shared_experts)
    expert_names = {task.name: name_experts(task.name, task_experts) for task in tasks}
    reads = {expert: task for task, experts in expert_names.items() for expert in experts}
    return ExpertRouting(
        expert_inputs={**dict.fromkeys(shared, SHARED), **reads},
        gate_experts={task: (*shared, *experts) for task, experts in expert_names.items()},
    )
