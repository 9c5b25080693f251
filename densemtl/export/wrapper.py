"""Wrapper of a model for export, from a tensor to one tensor per task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.tasks.base import Task


class ExportWrapper(nn.Module):
    """Model for export, optionally with pre- and postprocessing.

    Args:
        model: the model, in evaluation mode.
        tasks: tasks that the model was built with, in the order of the outputs.
        preprocess: whether to normalize images inside the model. If True, the input is uint8 RGB in
            0..255, otherwise normalized float32.
        postprocess: whether to decode logits inside the model, to class ids, probabilities, depth
            in meters and unit vectors. If False, the outputs are logits.

    Example:
        >>> import torch
        >>> import densemtl
        >>> tasks = densemtl.create_tasks(["depth", "normals"])
        >>> model = densemtl.create_model("hard_sharing", backbone="test_resnet", tasks=tasks)
        >>> network = ExportWrapper(model, tasks).eval()
        >>> outputs = network(torch.zeros(1, 3, 32, 64, dtype=torch.uint8))
        >>> dict(zip(network.output_names, [tuple(output.shape) for output in outputs]))
        {'depth': (1, 1, 32, 64), 'normals': (1, 3, 32, 64)}
    """

    def __init__(
        self,
        model: MultiTaskModel,
        tasks: Sequence[Task],
        *,
        preprocess: bool = True,
        postprocess: bool = True,
    ) -> None:
        super().__init__()
        self.model, self.tasks = model, list(tasks)
        self.preprocess, self.postprocess = preprocess, postprocess

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return [task.name for task in self.tasks]

    def prepare_input(self, image: Tensor) -> Tensor:
        """Convert images to the input of `forward`.

        Args:
            image: images (B, C, H, W) in 0..255, uint8 RGB images, or of other channels as trained.

        Returns:
            The images, normalized unless the model does so itself.
        """
        return image if self.preprocess else self.model.normalize(image)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Predict all tasks.

        Args:
            image: images (B, C, H, W) as of `prepare_input`; `model.size_divisor` divides H and W.

        Returns:
            One tensor per task: decoded predictions or logits at image size.
        """
        predictions = self.model(image) if self.preprocess else self.model.predict(image)
        return tuple(
            task.decode(predictions.logits[task.name])
            if self.postprocess
            else predictions.logits[task.name]
            for task in self.tasks
        )
