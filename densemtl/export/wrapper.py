"""A network as it is exported: tensors in, one tensor a task out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.tasks.base import Task


class ExportWrapper(nn.Module):
    """A model with what comes before and after it inside, if asked for.

    Args:
        model: in evaluation mode.
        tasks: it was built with; their order is that of the outputs.
        preprocess: normalise inside: the input is RGB in 0..255, uint8; else it is normalised
            float32 already.
        postprocess: decode inside: class ids, probabilities, metres, unit vectors; else logits.
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
        """Of the outputs."""
        return [task.name for task in self.tasks]

    def prepare_input(self, image: Tensor) -> Tensor:
        """Bx3xHxW uint8 RGB -> what `forward` takes."""
        return image if self.preprocess else self.model.normalize(image)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return one tensor per task for a Bx3xHxW image; `model.size_divisor` divides H and W."""
        predictions = self.model(image) if self.preprocess else self.model.predict(image)
        return tuple(
            task.decode(predictions.logits[task.name])
            if self.postprocess
            else predictions.logits[task.name]
            for task in self.tasks
        )
