"""Predictor: the interface between images and the predictions of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from densemtl.adapters.merging import merge_adapters
from densemtl.config.sections import InputConfig, TrainConfig
from densemtl.data.image_format import get_image_format
from densemtl.engine.loading import TrainedModel, load_trained_model
from densemtl.evaluation.evaluate import decode_prediction, forward_low_res, mask_prediction
from densemtl.factory import get_border
from densemtl.hub.download import from_pretrained
from densemtl.inference import tiling
from densemtl.inference.config import InferenceSettings, parse_inference_options
from densemtl.inference.test_time_augmentation import (
    Augmentation,
    AugmentedImage,
    make_tta_augmentations,
)
from densemtl.io.image_inputs import ImageInput, to_channel_array, to_rgb_array
from densemtl.io.paths import parse_path
from densemtl.models.batch_norm_folding import fuse_conv_bn
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.ops.layouts import to_hwc
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.runtime.execution import AUTOCAST_DTYPES, ExecutionConfig, make_execution_config
from densemtl.tasks.base import Task
from densemtl.types import Image, PredictionMaps


class Predictor:
    """Predictor that maps images of any type and size to predictions of the same size.

    By default, predictions are exactly those that evaluation scores. With test-time augmentation
    (`flip`, `scales`), each task transforms the logits of an augmented image back
    (`Task.inverse_transform_logits`: the x component of flipped normals changes its sign, and the
    depth of an image that was enlarged by a factor s is multiplied by s), and the logits are
    averaged. Tiles (`tile`) have the original resolution, so that objects appear larger and
    therefore nearer than in the resized images that the model was trained on; depth is corrected
    for this as well.

    Args:
        model: model that returns `Predictions`; it is moved to the device.
        tasks: tasks that the model was built with.
        input_config: input size and fit that the model was trained with.
        device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one. An
            `ExecutionConfig` also sets autocast dtype and memory layout.
        options: options of `InferenceSettings`.

    Attributes:
        num_channels: number of channels of images.
        is_rgb: whether images are converted to 8-bit RGB, as without `data.channels`.

    Raises:
        ConfigError: if an option is unknown or a value is invalid.

    Example:
        >>> import numpy as np
        >>> import densemtl
        >>> tasks = densemtl.create_tasks(["depth", "normals"])
        >>> model = densemtl.create_model("hard_sharing", backbone="test_resnet", tasks=tasks)
        >>> predictor = densemtl.Predictor(
        ...     model, tasks, InputConfig(size=(32, 48)), device="cpu", flip=True
        ... )
        >>> maps = predictor(np.zeros((37, 61, 3), np.uint8))
        >>> {task: prediction.shape for task, prediction in maps.items()}
        {'depth': (37, 61), 'normals': (37, 61, 3)}
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
        default = (
            device
            if isinstance(device, ExecutionConfig)
            else make_execution_config(TrainConfig(amp="none"), device)
        )
        self.precision = _select_precision(default, self.settings)
        self._model = _prepare_model(self.precision.to_device(model), self.settings)
        self._augmentations = make_tta_augmentations(self.settings.scales, self.settings.flip)
        self.num_channels: int = getattr(model, "num_channels", 3)
        self.is_rgb = self.num_channels == 3
        self._border = None if self.is_rgb else tuple(cast(Tensor, model.mean).flatten().tolist())

    @classmethod
    def from_trained(cls, loaded: TrainedModel, **options: Any) -> Predictor:
        """Create a predictor from a loaded model.

        Args:
            loaded: the model; autocast dtype and memory layout are those of its training unless the
                options change them.
            options: options of `InferenceSettings`.

        Returns:
            The predictor.

        Raises:
            ConfigError: if an option is unknown or a value is invalid.
        """
        experiment, execution = loaded.experiment, loaded.execution
        predictor = cls(loaded.model, loaded.tasks, experiment.input, device=execution, **options)
        predictor.is_rgb = get_image_format(experiment.data).is_rgb
        predictor._border = get_border(experiment)
        return predictor

    @classmethod
    def from_run(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        trust_custom_code: bool = False,
        **options: Any,
    ) -> Predictor:
        """Create a predictor from a run.

        Args:
            path: a run folder, a `.safetensors` file that this project wrote, or the name of a
                shipped model.
            device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one.
            trust_custom_code: whether the run may name custom classes, which are imported.
            options: options of `InferenceSettings`.

        Returns:
            The predictor.

        Raises:
            CheckpointError: if the weights are missing or corrupt.
            ConfigError: if an option is unknown or a value is invalid.
        """
        loaded = load_trained_model(
            parse_path(path), device=device, trust_custom_code=trust_custom_code
        )
        return cls.from_trained(loaded, **options)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str | None = None, **options: Any
    ) -> Predictor:
        """Create a predictor from a published model.

        `densemtl.from_pretrained` loads other revisions of a repository and models with custom
        components; pass its result to `from_trained`.

        Args:
            source: a folder that `densemtl.save_pretrained` or a run wrote, the name of a shipped
                model, "densemtl/lite0-six", or the name of a hub repository, "owner/name".
            device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one.
            options: options of `InferenceSettings`.

        Returns:
            The predictor.

        Raises:
            CheckpointError: if the source does not exist, cannot be downloaded, or is corrupt.
            ConfigError: if an option is unknown or a value is invalid.
        """
        return cls.from_trained(from_pretrained(source, device=device), **options)

    @overload
    def __call__(self, image: ImageInput) -> PredictionMaps: ...

    @overload
    def __call__(self, image: list[Any]) -> list[PredictionMaps]: ...

    @torch.inference_mode()
    def __call__(self, image: ImageInput | list[Any]) -> PredictionMaps | list[PredictionMaps]:
        """Predict all tasks.

        Args:
            image: path, PIL image, array or tensor (see `to_rgb_array`), or a list of images of any
                sizes. If the model was trained with `data.channels`, an image has as many channels,
                and can be a path or an array (see `to_channel_array`).

        Returns:
            {task: decoded prediction at the size of the image}, or a list of these. Class ids,
            probabilities and scalars (depth in meters) have shape (H, W), vectors (H, W, C). Values
            are NaN where a task with `entire_space` predicts that none exists.

        Raises:
            DataError: if the input is not an image.
        """
        self._set_eval_mode()
        if not isinstance(image, list):
            return self._predict([self._read(image)])[0]
        maps, size = [], self.settings.batch_size
        for start in range(0, len(image), size):
            maps += self._predict([self._read(item) for item in image[start : start + size]])
        return maps

    @torch.inference_mode()
    def predict_sample(self, image: Image) -> PredictionMaps:
        """Predict all tasks of an image that a dataset has read.

        Args:
            image: image in the layout of `Sample`, whose floats are in 0..255.

        Returns:
            {task: decoded prediction}, as of `__call__`.
        """
        self._set_eval_mode()
        return self._predict([image])[0]

    def _set_eval_mode(self) -> None:
        if self._model.training:  # only then, since this visits every module
            self._model.eval()

    def _read(self, image: ImageInput) -> Image:
        return to_rgb_array(image) if self.is_rgb else to_channel_array(image, self.num_channels)

    def _predict(self, images: Sequence[Image]) -> list[PredictionMaps]:
        return self._predict_single(images) if self._is_single_view else self._predict_tta(images)

    @property
    def _is_single_view(self) -> bool:
        """Whether neither test-time augmentation nor tiling is used."""
        return self._augmentations == [Augmentation()] and self.settings.tile is None

    def _predict_single(self, images: Sequence[Image]) -> list[PredictionMaps]:
        """Predict whole images exactly as evaluation does."""
        results: list[PredictionMaps] = []
        inputs = [
            Augmentation().apply(image, self.input_config, None, self._border) for image in images
        ]
        for batch in tiling.iter_equal_size_batches(inputs, self.settings.batch_size):
            image = tiling.stack_images(batch).to(self.precision.device)
            predictions = forward_low_res(self._model, image, self.precision)
            for row, item in enumerate(batch):
                output = predictions, row, item.placement
                maps: PredictionMaps = {}
                for task in self.tasks:
                    decoded = decode_prediction(task, *output)
                    maps[task.name] = to_hwc(mask_prediction(task, decoded, *output)[0])
                results.append(maps)
        return results

    def _predict_tta(self, images: Sequence[Image]) -> list[PredictionMaps]:
        """Average the logits of all augmented images, each predicted as a whole or in tiles."""
        means: list[dict[str, Tensor]] = [{} for _ in images]
        tile, settings = self.settings.tile, self.settings
        for augmentation in self._augmentations:
            inputs = [
                augmentation.apply(image, self.input_config, tile, self._border) for image in images
            ]
            augmented_logits = tiling.predict_tiled(
                self._forward,
                [item.image for item in inputs],
                tile,
                settings.overlap,
                settings.batch_size,
            )
            for mean, item, logits in zip(means, inputs, augmented_logits, strict=True):
                for task in self.tasks:
                    part = self._restore(task, logits[task.name], item) / len(self._augmentations)
                    mean[task.name] = mean[task.name] + part if task.name in mean else part
        return [self._decode(mean) for mean in means]

    def _forward(self, image: Tensor) -> dict[str, Tensor]:
        final: dict[str, Tensor] = self.precision.forward(
            self._model, image.to(self.precision.device)
        ).logits
        return final

    def _restore(self, task: Task, logits: Tensor, augmented: AugmentedImage) -> Tensor:
        """Transform the logits of an augmented image back to the original image."""
        restored = LazyLogits.from_placement(logits, augmented.placement).upsample()
        return task.inverse_transform_logits(restored, augmented.scale, augmented.flip)

    def _decode(self, logits: dict[str, Tensor]) -> PredictionMaps:
        return {
            task.name: to_hwc(task.mask_invalid(task.decode(maps), maps)[0])
            for task, maps in ((task, logits[task.name]) for task in self.tasks)
        }


def _select_precision(default: ExecutionConfig, settings: InferenceSettings) -> ExecutionConfig:
    """Apply the autocast dtype and memory layout of the settings to the defaults."""
    amp, last = settings.amp, settings.channels_last
    return replace(
        default,
        autocast_dtype=default.autocast_dtype if amp is None else AUTOCAST_DTYPES.get(amp),
        channels_last=default.channels_last if last is None else last,
    )


def _prepare_model(model: nn.Module, settings: InferenceSettings) -> nn.Module:
    """Merge adapters, fold batch normalization and compile the model, as the settings request."""
    if settings.merge_adapters:
        model = merge_adapters(model)
    if settings.fuse_bn:
        assert isinstance(model, MultiTaskModel)
        model = fuse_conv_bn(model)
    if settings.compile:
        model = cast(nn.Module, torch.compile(model))
    return model
