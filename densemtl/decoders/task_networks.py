"""Base class of decoders that have one backbone and one head per task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from densemtl.decoders.base import BackboneFactory, Decoder, HeadFactory, make_heads
from densemtl.tasks.base import Task
from densemtl.types import FUSION


class PerTaskNetworks(Decoder):
    """Base class of decoders that have one backbone and one head per task.

    Each of these networks can be initialized from a trained single-task network.

    Args:
        make_backbone: factory of backbones; called once per task.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.

    Attributes:
        feature_info: channels and strides of the feature pyramid of each backbone.
        backbones: {task: backbone}.
        heads: {task: head}.
    """

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
        """Return the parameters that exchange features between the networks of the tasks.

        Returns:
            The parameters; each is listed once.
        """

    def load_single_task(self, task: str, state_dict: Mapping[str, Tensor]) -> None:
        """Load the weights of a single-task network into the network of a task.

        Args:
            task: name of the task.
            state_dict: state of a `SingleTask` decoder.

        Raises:
            RuntimeError: if parameter names or shapes differ.
        """
        modules = {"backbone.": self.backbones[task], f"heads.{task}.": self.heads[task]}
        for prefix, module in modules.items():
            tensors = {name: value for name, value in state_dict.items() if name.startswith(prefix)}
            module.load_state_dict({name[len(prefix) :]: value for name, value in tensors.items()})

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; backbones and heads belong to their tasks, all others are fusion
            parameters.
        """
        task_parameters = {
            task: [*self.backbones[task].parameters(), *self.heads[task].parameters()]
            for task in self.task_names
        }
        return {**task_parameters, FUSION: self.fusion_parameters()}


def split_alpha(alpha: float, num_tasks: int) -> tuple[float, float]:
    """Return the initial weights of a task's own features and of those of each other task.

    Args:
        alpha: weight of the task's own features, in [0, 1]; ignored for a single task.
        num_tasks: number of tasks whose features are mixed.

    Returns:
        (own weight, weight of each other task); the weights of all tasks sum to 1.

    Example:
        >>> split_alpha(0.5, num_tasks=3)
        (0.5, 0.25)
    """
    return (alpha, (1 - alpha) / (num_tasks - 1)) if num_tasks > 1 else (1.0, 0.0)
