"""What the demo makes of images, videos, a camera and a dataset: every picture in its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from densemtl.data.base import DenseDataset
from densemtl.demo.point_cloud import PointCloudBuilder, write_ply
from densemtl.demo.raw_outputs import write_raw_outputs
from densemtl.demo.video import VideoReader, Webcam, repeat_to_frame_rate, write_video
from densemtl.inference.predictor import Predictor
from densemtl.io.image_inputs import to_rgb_array
from densemtl.io.media import assign_output_names
from densemtl.io.writers import write_image
from densemtl.types import PredictionMaps, RGBImage
from densemtl.visualization.panels import draw_prediction_panel
from densemtl.visualization.prediction_panels import pick_evenly_spaced

WEBCAM_NAME = "webcam"
"""Name of a camera's film."""


@dataclass(frozen=True)
class DemoRenderer:
    """Predicts and writes.

    Attributes:
        predictor: the network.
        output: folder for the pictures; raw maps lie in its `maps`, point clouds in its `points`.
        overlay: how much predictions cover the image, from 0 to 1, which shows them alone.
        save_raw: write the maps themselves.
        point_cloud_builder: what makes point clouds, if anything.
    """

    predictor: Predictor
    output: Path
    overlay: float = 1.0
    save_raw: bool = False
    point_cloud_builder: PointCloudBuilder | None = None

    def render_images(self, files: Sequence[Path]) -> None:
        """Each -> NAME.png.

        Raises:
            DataError: one cannot be read, or would be replaced.
        """
        for name, file in assign_output_names(files, self.output, ".png").items():
            image = to_rgb_array(file)
            self._write_image(name, image, self.predictor(image))

    def render_videos(self, files: Sequence[Path]) -> None:
        """Each -> NAME.mp4 of as many frames; maps and points are numbered by frame from 0.

        Raises:
            DataError: one cannot be read, or would be replaced.
            KeyboardInterrupt: after Ctrl-C, when what was done so far lies in its place.
        """
        for name, file in assign_output_names(files, self.output, ".mp4").items():
            video = VideoReader(file)
            frames = track(video, file.name, total=video.num_frames or None)
            write_video(self.output / f"{name}.mp4", video.fps, self._iter_panels(name, frames))

    def render_webcam(self, index: int) -> None:
        """A camera -> a video in real time, until someone stops it."""
        camera = Webcam(index)
        film = repeat_to_frame_rate(self._iter_panels(WEBCAM_NAME, camera), camera.fps)
        write_video(self.output / f"{WEBCAM_NAME}.mp4", camera.fps, film)

    def render_dataset(self, dataset: DenseDataset, num_images: int) -> None:
        """Evenly spaced samples of a split, predictions above ground truth."""
        for index in pick_evenly_spaced(len(dataset), num_images):
            sample = dataset[index]
            maps = self.predictor(sample.image)
            self._write_image(sample.id.replace("/", "_"), sample.image, maps, sample.targets)

    def _write_image(
        self,
        name: str,
        image: RGBImage,
        maps: PredictionMaps,
        targets: Mapping[str, NDArray[np.generic]] | None = None,
    ) -> None:
        write_image(self.output / f"{name}.png", self._make_panel(image, maps, targets))
        self._write_extras(name, image, maps)

    def _iter_panels(self, name: str, frames: Iterable[RGBImage]) -> Iterator[RGBImage]:
        for index, frame in enumerate(frames):
            maps = self.predictor(frame)
            self._write_extras(f"{name}_{index:06d}", frame, maps)
            yield self._make_panel(frame, maps)

    def _make_panel(
        self,
        image: RGBImage,
        maps: PredictionMaps,
        targets: Mapping[str, NDArray[np.generic]] | None = None,
    ) -> RGBImage:
        return draw_prediction_panel(image, maps, targets, self.predictor.tasks, self.overlay)

    def _write_extras(self, name: str, image: RGBImage, maps: PredictionMaps) -> None:
        """What is asked for besides the picture."""
        if self.save_raw:
            write_raw_outputs(self.output / "maps", self.predictor.tasks, name, maps)
        if self.point_cloud_builder:
            write_ply(self.output / "points" / f"{name}.ply", self.point_cloud_builder(image, maps))
