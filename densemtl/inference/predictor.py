"""From images to maps: what the demo, the pictures of a run, and people's own programs call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from densemtl.config.sections import InputConfig, TrainConfig
from densemtl.engine.loading import TrainedModel, load_trained_model
from densemtl.evaluation.evaluate import decode_prediction, forward_low_res
from densemtl.hub.download import from_pretrained
from densemtl.inference import tiling
from densemtl.inference.config import InferenceSettings, parse_inference_options
from densemtl.inference.test_time_augmentation import (
    Augmentation,
    AugmentedImage,
    make_tta_augmentations,
)
from densemtl.io.image_inputs import ImageInput, to_rgb_array
from densemtl.models.batch_norm_folding import fuse_conv_bn
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.ops.layouts import to_hwc
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.runtime.execution import AUTOCAST_DTYPES, ExecutionConfig, make_execution_config
from densemtl.tasks.base import Task
from densemtl.types import PredictionMaps, RGBImage


class Predictor:
    """A network that takes images of any form and size, and gives maps of their size.

    One view of the whole image, the default, gives exactly what evaluation scores. Several views
    (`flip`, `scales`) are brought back by each task (`Task.inverse_transform_logits`: mirrored
    normals get their x back, depth seen s times nearer is multiplied by s), and their logits are
    averaged. Windows (`tile`) show an image larger, hence nearer, than the shrunk input that the
    network was trained on; depth is corrected for that likewise.

    Args:
        model: the network; it is moved to the device.
        tasks: those it was built with.
        input_config: what it was trained on.
        device: "cpu", "cuda" ..; None for a GPU where there is one.
        options: see `InferenceSettings`.

    Raises:
        ConfigError: an unknown option or a wrong value.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[Task],
        input_config: InputConfig | None = None,
        *,
        device: str | ExecutionConfig | None = None,
        **options: Any,
    ) -> None:
        self.tasks, self.input_config = list(tasks), input_config or InputConfig()
        self.settings = parse_inference_options(options)
        usual = (
            device
            if isinstance(device, ExecutionConfig)
            else make_execution_config(TrainConfig(), device)
        )
        self.precision = _select_precision(usual, self.settings)
        self._model = _prepare_model(self.precision.to_device(model), self.settings)
        self._augmentations = make_tta_augmentations(self.settings.scales, self.settings.flip)

    @classmethod
    def from_trained(cls, loaded: TrainedModel, **options: Any) -> Predictor:
        """Of a loaded network, which runs as it was trained unless the options say otherwise.

        Raises:
            ConfigError: an unknown option or a wrong value.
        """
        where, how = loaded.experiment.input, loaded.execution
        return cls(loaded.model, loaded.tasks, where, device=how, **options)

    @classmethod
    def from_run(cls, path: str | Path, *, device: str | None = None, **options: Any) -> Predictor:
        """Of a run's folder, or a `.safetensors` file that this project wrote.

        Raises:
            CheckpointError: missing or corrupt.
            ConfigError: an unknown option or a wrong value.
        """
        return cls.from_trained(load_trained_model(Path(path), device=device), **options)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str | None = None, **options: Any
    ) -> Predictor:
        """Of a folder that was published, or a hub repository, "owner/name".

        See `from_pretrained` of densemtl for revisions and own components.

        Raises:
            CheckpointError: not there, not to be had, or corrupt.
            ConfigError: an unknown option or a wrong value.
        """
        return cls.from_trained(from_pretrained(source, device=device), **options)

    @overload
    def __call__(self, image: ImageInput) -> PredictionMaps: ...

    @overload
    def __call__(self, image: list[Any]) -> list[PredictionMaps]: ...

    @torch.inference_mode()
    def __call__(self, image: ImageInput | list[Any]) -> PredictionMaps | list[PredictionMaps]:
        """An image -> its maps; a list of images, of any sizes -> a list.

        Returns:
            {task: decoded prediction at the image's size}: class ids, probabilities and scalars
            (depth in metres) HxW, vectors HxWxC.

        Raises:
            DataError: not an image.
        """
        self._model.eval()
        if not isinstance(image, list):
            return self._predict([to_rgb_array(image)])[0]
        maps, size = [], self.settings.batch_size
        for start in range(0, len(image), size):
            maps += self._predict([to_rgb_array(item) for item in image[start : start + size]])
        return maps

    def _predict(self, images: Sequence[RGBImage]) -> list[PredictionMaps]:
        return self._predict_single(images) if self._is_single_view else self._predict_tta(images)

    @property
    def _is_single_view(self) -> bool:
        """Whether one usual view of the whole image is all there is."""
        return self._augmentations == [Augmentation()] and self.settings.tile is None

    def _predict_single(self, images: Sequence[RGBImage]) -> list[PredictionMaps]:
        """Exactly as evaluation does."""
        results: list[PredictionMaps] = []
        canvases = [Augmentation().apply(image, self.input_config, None) for image in images]
        for batch in tiling.iter_equal_size_batches(canvases, self.settings.batch_size):
            image = tiling.stack_images(batch).to(self.precision.device)
            predictions = forward_low_res(self._model, image, self.precision)
            for row, canvas in enumerate(batch):
                frame = canvas.placement
                maps = {
                    task.name: decode_prediction(task, predictions, row, frame)
                    for task in self.tasks
                }
                results.append({task: to_hwc(prediction[0]) for task, prediction in maps.items()})
        return results

    def _predict_tta(self, images: Sequence[RGBImage]) -> list[PredictionMaps]:
        """Logits of all views and windows averaged."""
        means: list[dict[str, Tensor]] = [{} for _ in images]
        tile, settings = self.settings.tile, self.settings
        for view in self._augmentations:
            canvases = [view.apply(image, self.input_config, tile) for image in images]
            shown = [canvas.image for canvas in canvases]
            view_logits = tiling.predict_tiled(
                self._forward, shown, tile, settings.overlap, settings.batch_size
            )
            for mean, canvas, logits in zip(means, canvases, view_logits, strict=True):
                for task in self.tasks:
                    part = self._restore(task, logits[task.name], canvas) / len(self._augmentations)
                    mean[task.name] = mean[task.name] + part if task.name in mean else part
        return [self._decode(mean) for mean in means]

    def _forward(self, image: Tensor) -> dict[str, Tensor]:
        final: dict[str, Tensor] = self.precision.forward(
            self._model, image.to(self.precision.device)
        ).logits
        return final

    def _restore(self, task: Task, logits: Tensor, augmented: AugmentedImage) -> Tensor:
        """Logits of a view -> at the image's size."""
        restored = LazyLogits.from_placement(logits, augmented.placement).upsample()
        return task.inverse_transform_logits(restored, augmented.scale, augmented.flip)

    def _decode(self, logits: dict[str, Tensor]) -> PredictionMaps:
        return {task.name: to_hwc(task.decode(logits[task.name])[0]) for task in self.tasks}


def _select_precision(default: ExecutionConfig, settings: InferenceSettings) -> ExecutionConfig:
    """How the network was trained, where the settings leave it open."""
    amp, last = settings.amp, settings.channels_last
    return replace(
        default,
        autocast_dtype=default.autocast_dtype if amp is None else AUTOCAST_DTYPES.get(amp),
        channels_last=default.channels_last if last is None else last,
    )


def _prepare_model(model: nn.Module, settings: InferenceSettings) -> nn.Module:
    if settings.fuse_bn:
        assert isinstance(model, MultiTaskModel)
        model = fuse_conv_bn(model)
    if settings.compile:
        model = cast(nn.Module, torch.compile(model))
    return model
