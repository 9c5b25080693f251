"""What all architectures with a network a task have in common, whatever lets these meet."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from densemtl.decoders.base import BackboneFactory, Decoder, HeadFactory, make_heads
from densemtl.tasks.base import Task
from densemtl.types import FUSION


class PerTaskNetworks(Decoder):
    """One backbone and one head a task, which can start from single-task ones."""

    def __init__(
        self, make_backbone: BackboneFactory, make_head: HeadFactory, tasks: Sequence[Task]
    ) -> None:
        super().__init__(tasks)
        backbones = {task.name: make_backbone() for task in tasks}
        self.feature_info = next(iter(backbones.values())).feature_info
        self.backbones = nn.ModuleDict(backbones)
        self.heads = make_heads(make_head, self.feature_info, tasks)

    @abstractmethod
    def fusion_parameters(self) -> list[nn.Parameter]:
        """The parameters of what networks meet in."""

    def load_single_task(self, task: str, state_dict: Mapping[str, Tensor]) -> None:
        """Give a task's network the weights of a single-task one.

        Args:
            task: whose.
            state_dict: the state of a `SingleTask` decoder.

        Raises:
            RuntimeError: names or shapes differ.
        """
        modules = {"backbone.": self.backbones[task], f"heads.{task}.": self.heads[task]}
        for prefix, module in modules.items():
            tensors = {name: value for name, value in state_dict.items() if name.startswith(prefix)}
            module.load_state_dict({name[len(prefix) :]: value for name, value in tensors.items()})

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Each network is its task's; nothing is shared but what they meet in."""
        task_parameters = {
            task: [*self.backbones[task].parameters(), *self.heads[task].parameters()]
            for task in self.task_names
        }
        return {**task_parameters, FUSION: self.fusion_parameters()}


def split_alpha(alpha: float, num_tasks: int) -> tuple[float, float]:
    """(what a task keeps of its own, what it takes of each other), over all tasks together 1.

    With several tasks alpha is the first of them.
    """
    return (alpha, (1 - alpha) / (num_tasks - 1)) if num_tasks > 1 else (1.0, 0.0)
