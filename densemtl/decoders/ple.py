"""PLE: progressive layered extraction (Tang et al., RecSys 2020, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.decoders.base import MakeBackbone, MakeHead
from densemtl.decoders.cgc import customized
from densemtl.decoders.gated_experts import GatedExperts
from densemtl.config.constraints import Few, FewOrNone
from densemtl.layers.mixture_of_experts import Wiring
from densemtl.tasks.base import Task
from densemtl.types import SHARED


class PLE(GatedExperts):
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
        own_experts: how many each task has besides; may be 0.
        options: see `GatedExperts`.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        make_head: MakeHead,
        tasks: Sequence[Task],
        *,
        layers: Few = 2,
        shared_experts: Few = 1,
        own_experts: FewOrNone = 1,
        **options: Any,
    ) -> None:
        last = customized(tasks, shared_experts, own_experts)
        every = tuple(sorted(last.experts))  # whatever the order of tasks
        below = Wiring(last.experts, {**last.gates, SHARED: every})
        wirings = [*[below] * (layers - 1), last]
        super().__init__(make_backbone, make_head, tasks, wirings, **options)
