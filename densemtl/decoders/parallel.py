"""What cross-stitch, NDDR and their kin share: a network a task, meeting after every stage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from densemtl.decoders.base import Decoder, MakeBackbone, MakeHead, make_heads
from densemtl.errors import ConfigError
from densemtl.models.backbone import Backbone
from densemtl.tasks.base import Task
from densemtl.types import Predictions

STEM = 0
"""The level of what stage 0 starts from; stage i gives level i + 1."""


class ParallelNetworks(Decoder):
    """One backbone and one head a task; `exchange` lets their features meet.

    Raises:
        ModelError: a backbone that cannot be run stage by stage.
    """

    def __init__(
        self, make_backbone: MakeBackbone, make_head: MakeHead, tasks: Sequence[Task]
    ) -> None:
        super().__init__(tasks)
        self.backbones = nn.ModuleDict({task.name: make_backbone() for task in tasks})
        self.spec = self._first().spec
        self._first().stage_modules(0)
        self.heads = make_heads(make_head, self.spec, tasks)

    @abstractmethod
    def exchange(self, level: int, features: list[Tensor]) -> list[Tensor]:
        """All tasks' BxCxHxW features of one level -> what each goes on with, in order of tasks."""

    @abstractmethod
    def fusion(self) -> list[nn.Parameter]:
        """The parameters of the exchange."""

    def forward(self, image: Tensor) -> Predictions:
        """Bx3xHxW normalised image -> logits at feature size."""
        networks = self._networks()
        levels = [self.exchange(STEM, [network.run_stem(image) for network in networks])]
        for stage in range(len(self.spec)):
            features = zip(networks, levels[-1], strict=True)
            own = [network.run_stage(stage, feature) for network, feature in features]
            levels.append(self.exchange(stage + 1, own))
        pyramids = [list(pyramid) for pyramid in zip(*levels[1:], strict=True)]
        return Predictions(self.predict(pyramids))

    def predict(self, pyramids: list[list[Tensor]]) -> dict[str, Tensor]:
        """Each task's pyramid -> its logits."""
        heads = zip(self.heads.items(), pyramids, strict=True)
        return {task: head(pyramid) for (task, head), pyramid in heads}

    def start_from(self, task: str, single: Mapping[str, Tensor]) -> None:
        """Give a task's network the weights of a single-task one.

        Args:
            task: whose.
            single: the state of a `SingleTask` decoder.

        Raises:
            RuntimeError: names or shapes differ.
        """
        own = {"backbone.": self.backbones[task], f"heads.{task}.": self.heads[task]}
        for prefix, module in own.items():
            tensors = {name: each for name, each in single.items() if name.startswith(prefix)}
            module.load_state_dict({name[len(prefix) :]: each for name, each in tensors.items()})

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Each network is its task's; nothing is shared but the exchange."""
        own = {
            task: [*self.backbones[task].parameters(), *self.heads[task].parameters()]
            for task in self.task_names
        }
        return {**own, "fusion": self.fusion()}

    def _networks(self) -> list[Backbone]:
        return [network for network in self.backbones.values() if isinstance(network, Backbone)]

    def _first(self) -> Backbone:
        return self._networks()[0]


def own_share(alpha: float, tasks: int) -> tuple[float, float]:
    """(what a task keeps of its own, what it takes of each other), over all tasks together 1.

    Raises:
        ConfigError: alpha, the first of them where there are several tasks, is not in 0..1.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"decoder.alpha: {alpha} must lie between 0 and 1")
    return (alpha, (1 - alpha) / (tasks - 1)) if tasks > 1 else (1.0, 0.0)
