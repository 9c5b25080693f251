"""ML-MMoE: multi-level MMoE (Ma et al., AAAI 2019, "SNR", experiments; Fig. 1h of PLE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.config.constraints import SmallPositiveInt
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.gated_experts import MixtureOfExperts
from densemtl.layers.mixture_of_experts import ExpertRouting, name_experts
from densemtl.tasks.base import Task
from densemtl.types import SHARED


class MLMMoE(MixtureOfExperts):
    """Layers of MMoE, in which an expert is to the layer below what a task is to the last.

    Each expert above the first layer has a gate of its own over all experts below, and reads what
    that mixes; tasks have gates over the last layer alone. All gates look at the backbone's
    feature. With one layer it is MMoE.

    Args:
        make_backbone: makes the one backbone.
        make_head: makes each task's head.
        tasks: the run's.
        layers: how many, on every level of the pyramid.
        experts: how many there are in a layer of a level.
        options: see `MixtureOfExperts`.
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        layers: SmallPositiveInt = 2,
        experts: SmallPositiveInt = 4,
        **options: Any,
    ) -> None:
        names = name_experts(SHARED, experts)
        own_stream = {name: name for name in names}
        below = ExpertRouting(own_stream, dict.fromkeys(names, names), gates_read_input=True)
        last = ExpertRouting(
            own_stream, {task.name: names for task in tasks}, gates_read_input=True
        )
        wirings = [*[below] * (layers - 1), last]
        super().__init__(make_backbone, make_head, tasks, wirings, **options)
