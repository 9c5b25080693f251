"""What the demo makes of images, videos, a camera and a dataset: every picture in its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from densemtl.data.base import DenseDataset
from densemtl.io.writers import write_picture
from densemtl.demo.point_cloud import PointMaker, write_ply
from densemtl.demo.raw_outputs import write_raw
from densemtl.demo.video import Video, Webcam, in_real_time, write_video
from densemtl.visualization.prediction_panels import Maps, spread_out
from densemtl.io.image_inputs import to_picture
from densemtl.inference.predictor import Predictor
from densemtl.io.media import place
from densemtl.visualization.panels import Picture, panel

WEBCAM = "webcam"
"""Name of a camera's film."""


@dataclass(frozen=True)
class Show:
    """Predicts and writes.

    Attributes:
        predictor: the network.
        output: folder for the pictures; raw maps lie in its `maps`, point clouds in its `points`.
        overlay: how much predictions cover the image, from 0 to 1, which shows them alone.
        raw: write the maps themselves.
        points: what makes point clouds, if anything.
    """

    predictor: Predictor
    output: Path
    overlay: float = 1.0
    raw: bool = False
    points: PointMaker | None = None

    def images(self, files: Sequence[Path]) -> None:
        """Each -> NAME.png.

        Raises:
            DataError: one cannot be read, or would be replaced.
        """
        for name, file in place(files, self.output, ".png").items():
            image = to_picture(file)
            self._still(name, image, self.predictor(image))

    def videos(self, files: Sequence[Path]) -> None:
        """Each -> NAME.mp4 of as many frames; maps and points are numbered by frame from 0.

        Raises:
            DataError: one cannot be read, or would be replaced.
            KeyboardInterrupt: after Ctrl-C, when what was done so far lies in its place.
        """
        for name, file in place(files, self.output, ".mp4").items():
            video = Video(file)
            frames = track(video, file.name, total=video.length or None)
            write_video(self.output / f"{name}.mp4", video.rate, self._panels(name, frames))

    def webcam(self, index: int) -> None:
        """A camera -> a video in real time, until someone stops it."""
        camera = Webcam(index)
        film = in_real_time(self._panels(WEBCAM, camera), camera.rate)
        write_video(self.output / f"{WEBCAM}.mp4", camera.rate, film)

    def dataset(self, dataset: DenseDataset, count: int) -> None:
        """Evenly spaced samples of a split, predictions above ground truth."""
        for index in spread_out(len(dataset), count):
            sample = dataset[index]
            maps = self.predictor(sample.image)
            self._still(sample.id.replace("/", "_"), sample.image, maps, sample.targets)

    def _still(
        self,
        name: str,
        image: Picture,
        maps: Maps,
        targets: Mapping[str, NDArray[np.generic]] | None = None,
    ) -> None:
        write_picture(self.output / f"{name}.png", self._panel(image, maps, targets))
        self._beside(name, image, maps)

    def _panels(self, name: str, frames: Iterable[Picture]) -> Iterator[Picture]:
        for index, frame in enumerate(frames):
            maps = self.predictor(frame)
            self._beside(f"{name}_{index:06d}", frame, maps)
            yield self._panel(frame, maps)

    def _panel(
        self,
        image: Picture,
        maps: Maps,
        targets: Mapping[str, NDArray[np.generic]] | None = None,
    ) -> Picture:
        return panel(image, maps, targets, self.predictor.tasks, self.overlay)

    def _beside(self, name: str, image: Picture, maps: Maps) -> None:
        """What is asked for besides the picture."""
        if self.raw:
            write_raw(self.output / "maps", self.predictor.tasks, name, maps)
        if self.points:
            write_ply(self.output / "points" / f"{name}.ply", self.points(image, maps))
