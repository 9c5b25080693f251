"""What all architectures with a network a task have in common, whatever lets these meet."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from densemtl.decoders.base import Decoder, MakeBackbone, MakeHead, make_heads
from densemtl.tasks.base import Task
from densemtl.types import FUSION


class OwnNetworks(Decoder):
    """One backbone and one head a task, which can start from single-task ones."""

    def __init__(
        self, make_backbone: MakeBackbone, make_head: MakeHead, tasks: Sequence[Task]
    ) -> None:
        super().__init__(tasks)
        backbones = {task.name: make_backbone() for task in tasks}
        self.spec = next(iter(backbones.values())).spec
        self.backbones = nn.ModuleDict(backbones)
        self.heads = make_heads(make_head, self.spec, tasks)

    @abstractmethod
    def fusion(self) -> list[nn.Parameter]:
        """The parameters of what networks meet in."""

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
        """Each network is its task's; nothing is shared but what they meet in."""
        own = {
            task: [*self.backbones[task].parameters(), *self.heads[task].parameters()]
            for task in self.task_names
        }
        return {**own, FUSION: self.fusion()}


def own_share(alpha: float, tasks: int) -> tuple[float, float]:
    """(what a task keeps of its own, what it takes of each other), over all tasks together 1.

    With several tasks alpha is the first of them.
    """
    return (alpha, (1 - alpha) / (tasks - 1)) if tasks > 1 else (1.0, 0.0)
