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
    """Multi-level MMoE: stacked layers of experts with gates between them.

    Ma et al., "SNR: Sub-Network Routing for Flexible Parameter Sharing in Multi-Task Learning",
    AAAI 2019, experiments; Fig. 1h of Tang et al., "Progressive Layered Extraction (PLE)", RecSys
    2020. Each expert of a layer except the first reads the output of its own gate, which mixes all
    experts of the layer below. The gates of the tasks mix the experts of the last layer. All gates
    read the backbone feature. With one layer, ML-MMoE is MMoE.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        layers: number of layers at each level of the feature pyramid.
        experts: number of experts per layer and level.
        options: options of `MixtureOfExperts`.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     {"name": "ml_mmoe", "experts": 2}, backbone="test_resnet", tasks=["depth", "edge"]
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
        routings = [*[below] * (layers - 1), last]
        super().__init__(make_backbone, make_head, tasks, routings, **options)
