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
    """Layers of CGC; what each gate mixed below is what its experts and its gate read above.

    In all layers but the last, where none would use it, a shared gate besides mixes the experts of
    all tasks and the shared ones into what the shared experts read above (eq. 6). With one layer
    it is CGC.

    Args:
        make_backbone: makes the one backbone.
        make_head: makes each task's head.
        tasks: the run's.
        layers: how many, on every level of the pyramid.
        shared_experts: how many all tasks use, in a layer of a level.
        task_experts: how many each task has besides; may be 0.
        options: see `MixtureOfExperts`.
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
        every = tuple(sorted(last.expert_inputs))  # whatever the order of tasks
        below = ExpertRouting(last.expert_inputs, {**last.gate_experts, SHARED: every})
        wirings = [*[below] * (layers - 1), last]
        super().__init__(make_backbone, make_head, tasks, wirings, **options)
