"""Rendering of predictions for images, videos, a camera and datasets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from densemtl.data.base import DenseDataset
from densemtl.demo.point_cloud import PointCloudBuilder, write_ply
from densemtl.demo.raw_outputs import write_raw_outputs
from densemtl.demo.video import VideoReader, Webcam, repeat_to_frame_rate, write_video
from densemtl.evaluation import prediction_files
from densemtl.inference.predictor import Predictor
from densemtl.io.image_inputs import to_rgb_array
from densemtl.io.media import assign_output_names
from densemtl.io.writers import write_image
from densemtl.runtime.background_iterator import iterate_in_background
from densemtl.types import PredictionMaps, RGBImage
from densemtl.visualization.color_range import ColorRangeSmoother
from densemtl.visualization.panels import draw_prediction_panel
from densemtl.visualization.prediction_panels import pick_evenly_spaced

WEBCAM_NAME = "webcam"
"""Name of the video of a camera, without suffix."""


@contextmanager
def _leave_one_core() -> Iterator[None]:
    """Use one thread less in torch, so that the other steps do not slow its threads."""
    count = torch.get_num_threads()
    torch.set_num_threads(max(count - 1, 1))
    try:
        yield
    finally:
        torch.set_num_threads(count)


@dataclass(frozen=True)
class DemoRenderer:
    """Renderer that predicts images and writes panels of the predictions.

    Attributes:
        predictor: model with options of inference.
        output: output folder; raw maps are written to its folder `maps`, point clouds to `points`.
        overlay: opacity of predictions over the image, from 0 (only the image) to 1 (only the
            predictions).
        save_raw: write the predicted maps as well.
        point_cloud_builder: converter to point clouds; None writes no point clouds.
    """

    predictor: Predictor
    output: Path
    overlay: float = 1.0
    save_raw: bool = False
    point_cloud_builder: PointCloudBuilder | None = None

    def render_images(self, files: Sequence[Path]) -> None:
        """Write a panel NAME.png for each image.

        Args:
            files: image files.

        Raises:
            DataError: if an image cannot be read, or an output would replace it.
        """
        for name, file in assign_output_names(files, self.output, ".png").items():
            image = to_rgb_array(file)
            self._write_image(name, image, self.predictor(image))

    def render_videos(self, files: Sequence[Path]) -> None:
        """Write a video NAME.mp4 of panels for each video, with the same number of frames.

        Files of raw maps and point clouds are numbered by frame, starting from 0.

        Args:
            files: video files.

        Raises:
            DataError: if a video cannot be read, or an output would replace it.
            KeyboardInterrupt: after Ctrl-C; the frames so far have been saved as a valid video.
        """
        for name, file in assign_output_names(files, self.output, ".mp4").items():
            video = VideoReader(file)
            panels = self._iter_panels(name, video)
            shown = track(panels, file.name, total=video.num_frames or None)
            write_video(self.output / f"{name}.mp4", video.fps, shown)

    def render_webcam(self, index: int) -> None:
        """Write a real-time video of panels from a camera until Ctrl-C.

        Args:
            index: index of the camera; 0 is the first one.

        Raises:
            DataError: if the camera does not exist.
            KeyboardInterrupt: after Ctrl-C; the frames so far have been saved as a valid video.
        """
        camera = Webcam(index)
        panels = repeat_to_frame_rate(self._iter_panels(WEBCAM_NAME, camera), camera.fps)
        write_video(self.output / f"{WEBCAM_NAME}.mp4", camera.fps, panels)

    def render_dataset(self, dataset: DenseDataset, num_images: int) -> None:
        """Write panels of evenly spaced samples, with predictions above ground truth.

        Args:
            dataset: split of a dataset.
            num_images: number of samples.
        """
        for index in pick_evenly_spaced(len(dataset), num_images):
            sample = dataset[index]
            maps = self.predictor(sample.image)
            self._write_image(sample.id, sample.image, maps, sample.targets)

    def _write_image(
        self,
        name: str,
        image: RGBImage,
        maps: PredictionMaps,
        targets: Mapping[str, NDArray[np.generic]] | None = None,
    ) -> None:
        file = prediction_files.make_output_path(self.output, name, ".png")
        panel = draw_prediction_panel(image, maps, targets, self.predictor.tasks, self.overlay)
        write_image(file, panel)
        self._write_extras(name, image, maps)

    def _iter_panels(self, name: str, frames: Iterable[RGBImage]) -> Iterator[RGBImage]:
        """Yield panels; reading, prediction and drawing of different frames overlap."""
        predicted = self._iter_predictions(iterate_in_background(frames))
        yield from iterate_in_background(self._iter_drawn(name, iterate_in_background(predicted)))

    def _iter_predictions(
        self, frames: Iterable[RGBImage]
    ) -> Iterator[tuple[RGBImage, PredictionMaps]]:
        with _leave_one_core():
            for frame in frames:
                yield frame, self.predictor(frame)

    def _iter_drawn(
        self, name: str, predicted: Iterable[tuple[RGBImage, PredictionMaps]]
    ) -> Iterator[RGBImage]:
        color_ranges = ColorRangeSmoother()
        for index, (frame, maps) in enumerate(predicted):
            self._write_extras(f"{name}_{index:06d}", frame, maps)
            tasks = color_ranges.fit(self.predictor.tasks, maps)
            yield draw_prediction_panel(frame, maps, None, tasks, self.overlay)

    def _write_extras(self, name: str, image: RGBImage, maps: PredictionMaps) -> None:
        """Write raw maps and point clouds if requested."""
        if self.save_raw:
            write_raw_outputs(self.output / "maps", self.predictor.tasks, name, maps)
        if self.point_cloud_builder:
            write_ply(self.output / "points" / f"{name}.ply", self.point_cloud_builder(image, maps))
