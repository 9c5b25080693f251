"""From images to maps: what the demo, the pictures of a run, and people's own programs call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from densemtl.ops.lazy_upsampling import Coarse
from densemtl.evaluation.evaluate import decode, run_coarse
from densemtl.visualization.prediction_panels import Maps
from densemtl.runtime.execution import AUTOCAST, Precision, make_precision
from densemtl.hub.download import from_pretrained
from densemtl.inference import tiling
from densemtl.io.image_inputs import Image, to_picture
from densemtl.inference.config import InferenceSettings, parse
from densemtl.inference.test_time_augmentation import Canvas, View, all_views
from densemtl.engine.loading import Loaded, load
from densemtl.models.batch_norm_folding import fold_batch_norm
from densemtl.models.multi_task_model import DenseModel
from densemtl.config.sections import InputSettings, TrainSettings
from densemtl.tasks.base import Task
from densemtl.visualization.panels import Picture, to_sample_layout


class Predictor:
    """A network that takes images of any form and size, and gives maps of their size.

    One view of the whole image, the default, gives exactly what evaluation scores. Several views
    (`flip`, `scales`) are brought back by each task (`Task.unwarp`: mirrored normals get their x
    back, depth seen s times nearer is multiplied by s), and their logits are averaged. Windows
    (`tile`) show an image larger, hence nearer, than the shrunk input that the network was trained
    on; depth is corrected for that likewise.

    Args:
        model: the network; it is moved to the device.
        tasks: those it was built with.
        input: what it was trained on.
        device: "cpu", "cuda" ..; None for a GPU where there is one.
        options: see `InferenceSettings`.

    Raises:
        ConfigError: an unknown option or a wrong value.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[Task],
        input: InputSettings | None = None,
        *,
        device: str | Precision | None = None,
        **options: Any,
    ) -> None:
        self.tasks, self.input = list(tasks), input or InputSettings()
        self.settings = parse(options)
        usual = device if isinstance(device, Precision) else make_precision(TrainSettings(), device)
        self.precision = _chosen(usual, self.settings)
        self._model = _prepared(self.precision.place(model), self.settings)
        self._views = all_views(self.settings.scales, self.settings.flip)

    @classmethod
    def of(cls, loaded: Loaded, **options: Any) -> Predictor:
        """Of a loaded network, which runs as it was trained unless the options say otherwise.

        Raises:
            ConfigError: an unknown option or a wrong value.
        """
        where, how = loaded.experiment.input, loaded.precision
        return cls(loaded.model, loaded.tasks, where, device=how, **options)

    @classmethod
    def from_run(cls, path: str | Path, *, device: str | None = None, **options: Any) -> Predictor:
        """Of a run's folder, or a `.safetensors` file that this project wrote.

        Raises:
            CheckpointError: missing or corrupt.
            ConfigError: an unknown option or a wrong value.
        """
        return cls.of(load(Path(path), device=device), **options)

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
        return cls.of(from_pretrained(source, device=device), **options)

    @overload
    def __call__(self, image: Image) -> Maps: ...

    @overload
    def __call__(self, image: list[Any]) -> list[Maps]: ...

    @torch.inference_mode()
    def __call__(self, image: Image | list[Any]) -> Maps | list[Maps]:
        """An image -> its maps; a list of images, of any sizes -> a list.

        Returns:
            {task: decoded prediction at the image's size}: class ids, probabilities and scalars
            (depth in metres) HxW, vectors HxWxC.

        Raises:
            DataError: not an image.
        """
        self._model.eval()
        if not isinstance(image, list):
            return self._predict([to_picture(image)])[0]
        maps, size = [], self.settings.batch_size
        for start in range(0, len(image), size):
            maps += self._predict([to_picture(each) for each in image[start : start + size]])
        return maps

    def _predict(self, pictures: Sequence[Picture]) -> list[Maps]:
        return self._see(pictures) if self._is_plain else self._merge(pictures)

    @property
    def _is_plain(self) -> bool:
        """Whether one usual view of the whole image is all there is."""
        return self._views == [View()] and self.settings.tile is None

    def _see(self, pictures: Sequence[Picture]) -> list[Maps]:
        """Exactly as evaluation does."""
        found: list[Maps] = []
        canvases = [View().look(each, self.input, None) for each in pictures]
        for batch in tiling.batches(canvases, self.settings.batch_size):
            image = tiling.stack(batch).to(self.precision.device)
            predictions = run_coarse(self._model, image, self.precision)
            for row, canvas in enumerate(batch):
                frame = canvas.frame
                maps = {each.name: decode(each, predictions, row, frame) for each in self.tasks}
                found.append({task: to_sample_layout(each[0]) for task, each in maps.items()})
        return found

    def _merge(self, pictures: Sequence[Picture]) -> list[Maps]:
        """Logits of all views and windows averaged."""
        means: list[dict[str, Tensor]] = [{} for _ in pictures]
        tile, settings = self.settings.tile, self.settings
        for view in self._views:
            canvases = [view.look(each, self.input, tile) for each in pictures]
            shown = [canvas.picture for canvas in canvases]
            seen = tiling.run(self._network, shown, tile, settings.overlap, settings.batch_size)
            for mean, canvas, logits in zip(means, canvases, seen, strict=True):
                for task in self.tasks:
                    part = self._bring_back(task, logits[task.name], canvas) / len(self._views)
                    mean[task.name] = mean[task.name] + part if task.name in mean else part
        return [self._decode(mean) for mean in means]

    def _network(self, image: Tensor) -> dict[str, Tensor]:
        final: dict[str, Tensor] = self.precision.run(
            self._model, image.to(self.precision.device)
        ).final
        return final

    def _bring_back(self, task: Task, logits: Tensor, canvas: Canvas) -> Tensor:
        """Logits of a view -> at the image's size."""
        restored = Coarse.of(logits, canvas.frame).whole()
        return task.unwarp(restored, canvas.zoom, canvas.flip)

    def _decode(self, logits: dict[str, Tensor]) -> Maps:
        return {
            task.name: to_sample_layout(task.decode(logits[task.name])[0]) for task in self.tasks
        }


def _chosen(usual: Precision, settings: InferenceSettings) -> Precision:
    """How the network was trained, where the settings leave it open."""
    amp, last = settings.amp, settings.channels_last
    return replace(
        usual,
        autocast=usual.autocast if amp is None else AUTOCAST.get(amp),
        channels_last=usual.channels_last if last is None else last,
    )


def _prepared(model: nn.Module, settings: InferenceSettings) -> nn.Module:
    if settings.fold:
        assert isinstance(model, DenseModel)
        model = fold_batch_norm(model)
    if settings.compile:
        model = cast(nn.Module, torch.compile(model))
    return model
