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
    """All tasks have the same experts, and each a gate of its own over them (eq. 6 to 8).

    Every level of the pyramid has its own experts, bottlenecks, and gates. All experts are the
    identity at first, so that training starts as hard sharing does.

    Args:
        make_backbone: makes the one backbone.
        make_head: makes each task's head.
        tasks: the run's.
        experts: how many there are a level.
        options: see `MixtureOfExperts`.
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
