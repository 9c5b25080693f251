"""Loss of each task from predictions and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from densemtl.errors import ModelError
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.tasks.base import Task
from densemtl.tasks.loss_task import LossTask
from densemtl.tasks.pixel_affinity import compute_affinity_loss
from densemtl.tasks.value_classes import compute_value_class_loss
from densemtl.types import ImagePlacement, Losses, Predictions


def compute_task_losses(
    tasks: Sequence[Task],
    predictions: Predictions,
    targets: Mapping[str, Tensor],
    image: Tensor | None = None,
) -> Losses:
    """Compute the loss of each task.

    The loss of a task is the sum of its loss on the final prediction and on each auxiliary
    prediction (deep supervision), and of the cross-entropy of the classes of its values and the
    loss of the affinities of pixels if the decoder predicts them. Logits are upsampled to the size
    of the targets.

    Args:
        tasks: tasks of the run.
        predictions: predictions of the model. Further tasks are not used.
        targets: {task: targets} as in `Batch.targets`.
        image: RGB images in 0..255 at the size of the targets, shape (B, 3, H, W), for losses that
            need it.

    Returns:
        The unweighted losses of the tasks, and the auxiliary losses of the decoder.

    Raises:
        ModelError: if there is no prediction for one of the tasks, or no image for its losses.

    Example:
        >>> import torch
        >>> from densemtl.tasks.depth import Depth
        >>> from densemtl.tasks.multi_task_loss import compute_task_losses
        >>> from densemtl.types import Predictions
        >>> predictions = Predictions({"depth": torch.full((1, 1, 2, 2), 3.0)})
        >>> targets = {"depth": torch.full((1, 1, 4, 4), 2.5)}
        >>> compute_task_losses([Depth("depth")], predictions, targets).tasks
        {'depth': tensor(0.5000)}
    """
    losses = {
        task.name: _compute_task_loss(task, predictions, targets[task.name], image)
        for task in tasks
    }
    return Losses(losses, dict(predictions.aux_losses))


def _compute_task_loss(
    task: Task, predictions: Predictions, target: Tensor, image: Tensor | None
) -> Tensor:
    outputs = [predictions.logits, *predictions.aux_logits]
    logits = [output[task.name] for output in outputs if task.name in output]
    if not logits:
        names = ", ".join(predictions.logits)
        raise ModelError(
            f"the decoder has no prediction for task {task.name!r}, only for: {names}; "
            "add it to the predictions"
        )
    size = target.shape[-2], target.shape[-1]
    placement, padded_size = ImagePlacement(size, (0, 0, *size)), predictions.padded_size or size

    def upsample(low_res: Tensor) -> LazyLogits:
        return LazyLogits.from_placement(low_res.float(), placement, padded_size)

    upsampled = [upsample(each) for each in logits]
    losses = [task.compute_loss_low_res(lazy_logits, target) for lazy_logits in upsampled]
    if isinstance(task, LossTask) and task.needs_image:
        if image is None:
            raise ModelError(f"a loss of task {task.name!r} needs the image; pass it as well")
        losses += [task.compute_image_loss_low_res(each, target, image) for each in upsampled]
    classes = predictions.value_class_logits.get(task.name)
    if classes is not None:
        losses.append(compute_value_class_loss(task, classes, upsample(classes.logits), target))
    features = predictions.affinity_features.get(task.name)
    if features is not None:
        losses.append(compute_affinity_loss(task, features, target, padded_size))
    return sum(losses[1:], start=losses[0])
