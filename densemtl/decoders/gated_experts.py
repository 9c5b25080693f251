"""What MMoE, ML-MMoE, CGC and PLE share: experts and gates on every level of one pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.decoders.base import MakeBackbone, MakeHead, PyramidDecoder, make_heads
from densemtl.config.constraints import NonNegative, Width
from densemtl.layers.mixture_of_experts import (
    ExpertLayer,
    ExpertStack,
    Gates,
    Gating,
    Wiring,
    imbalance,
    mean_entropy,
    mean_gates,
)
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, Predictions, Sharing


class GatedExperts(PyramidDecoder):
    """Each level of the pyramid has a stack of layers of its own; a head reads its task's streams.

    Widths and sizes are kept, so that any head works on any backbone's pyramid.

    Args:
        make_backbone: makes the one backbone.
        make_head: makes each task's head.
        tasks: the run's.
        wirings: of each layer; the last one's takers are the tasks.
        gate: a choice for every "pixel", or for the whole image from its "pooled" feature.
        width: channels inside every expert; a quarter of its level's if left out.
        load_balance: weight of a loss that keeps all experts in use; the papers have none.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        make_head: MakeHead,
        tasks: Sequence[Task],
        wirings: Sequence[Wiring],
        *,
        gate: Gating = "pixel",
        width: Width | None = None,
        load_balance: NonNegative = 0.0,
    ) -> None:
        super().__init__(make_backbone, tasks)
        spec = self.backbone.spec
        self.wirings, self.load_balance = tuple(wirings), load_balance
        self.levels = nn.ModuleList(
            ExpertStack(wirings, channels, width, gate) for channels in spec.channels
        )
        self.heads = make_heads(make_head, spec, tasks)

    def predict(self, features: list[Tensor]) -> Predictions:
        """The pyramid, finest first -> logits of every task, and the imbalance if that is asked."""
        streams, gates = self._run(features)
        final = {
            task: head([level[task] for level in streams]) for task, head in self.heads.items()
        }
        return Predictions(final, terms=self._terms(gates))

    def _run(self, features: list[Tensor]) -> tuple[list[dict[str, Tensor]], list[list[Gates]]]:
        """The pyramid -> for each level the last layer's streams, and the gates of each layer."""
        runs = [stack(feature) for stack, feature in zip(self.levels, features, strict=True)]
        return [streams for streams, _ in runs], [gates for _, gates in runs]

    def _terms(self, levels: list[list[Gates]]) -> dict[str, Tensor]:
        """The mean imbalance over levels and layers, in training."""
        if not (self.training and self.load_balance):
            return {}
        each = [
            imbalance(*pair) for gates in levels for pair in zip(self.wirings, gates, strict=True)
        ]
        return {"load_balance": self.load_balance * torch.stack(each).mean()}

    def sharing(self, image: Tensor) -> Mapping[str, Sharing]:
        """Each layer's mean gates at each stage, and their entropy in 0..1, its mean over stages.

        Takers are tasks, and in lower layers what else has a gate; sources are experts.
        """
        _, levels = self._run(self.backbone(image))
        places, entropies = {}, {}
        for index, wiring in enumerate(self.wirings):
            takers, stages = tuple(wiring.gates), [gates[index] for gates in levels]
            for stage, gates in enumerate(stages, start=1):
                weights = mean_gates(wiring, gates).detach()
                place = f"layer {index + 1} stage {stage}"
                places[place] = Sharing(takers, tuple(wiring.experts), weights)
            spread = [mean_entropy(gates[taker]) for taker in takers for gates in stages]
            weights = torch.stack(spread).view(len(takers), -1).mean(dim=1, keepdim=True).detach()
            entropies[f"entropy layer {index + 1}"] = Sharing(takers, ("entropy",), weights)
        return {**places, **entropies}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Experts that read a task's stream are the task's, others shared; gates are fusion."""
        own = {task: list(head.parameters()) for task, head in self.heads.items()}
        groups = {SHARED: list(self.backbone.parameters()), **own, FUSION: []}
        for layer in (each for each in self.levels.modules() if isinstance(each, ExpertLayer)):
            for name, stream in layer.wiring.experts.items():
                groups[stream if stream in own else SHARED] += layer.experts[name].parameters()
            groups[FUSION] += layer.gates.parameters()
        return groups
