"""CGC: customized gate control (Tang et al., RecSys 2020, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.decoders.base import MakeBackbone, MakeHead
from densemtl.decoders.gated_experts import GatedExperts
from densemtl.config.constraints import Few, FewOrNone
from densemtl.layers.mixture_of_experts import Wiring, named
from densemtl.tasks.base import Task
from densemtl.types import SHARED


class CGC(GatedExperts):
    """Some experts are shared and some a task's own; its gate mixes both kinds (eq. 2 to 5).

    Every level of the pyramid has its own experts, bottlenecks, and gates. All experts are the
    identity at first, so that training starts as hard sharing does.

    Args:
        make_backbone: makes the one backbone.
        make_head: makes each task's head.
        tasks: the run's.
        shared_experts: how many all tasks use, a level.
        own_experts: how many each task has besides, a level; may be 0.
        options: see `GatedExperts`.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        make_head: MakeHead,
        tasks: Sequence[Task],
        *,
        shared_experts: Few = 1,
        own_experts: FewOrNone = 1,
        **options: Any,
    ) -> None:
        layer = customized(tasks, shared_experts, own_experts)
        super().__init__(make_backbone, make_head, tasks, [layer], **options)


def customized(tasks: Sequence[Task], shared_experts: int, own_experts: int) -> Wiring:
    """Each task's gate mixes the shared experts and its own."""
    shared = named(SHARED, shared_experts)
    own = {task.name: named(task.name, own_experts) for task in tasks}
    reads = {expert: task for task, experts in own.items() for expert in experts}
    return Wiring(
        experts={**dict.fromkeys(shared, SHARED), **reads},
        gates={task: (*shared, *experts) for task, experts in own.items()},
    )
