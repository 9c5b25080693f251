"""Pictures in and out: images, folders and videos to look at, panels and raw maps to keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.atomic import replacing
from densemtl.data.write import write_array, write_picture
from densemtl.errors import DataError
from densemtl.visualize import Picture

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def find_images(path: Path) -> list[Path]:
    """An image, or all images of a folder in order of their names.

    Raises:
        DataError: nothing there that could be an image.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
        if not found:
            raise DataError(f"{path}: no images in this folder; known are {', '.join(IMAGES)}")
        return found
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix.lower() not in IMAGES:
        known = ", ".join((*IMAGES, *VIDEOS))
        raise DataError(f"{path}: neither an image nor a video; known are {known}")
    return [path]


def is_video(path: Path) -> bool:
    """Whether a path is a file with a video's ending."""
    return path.is_file() and path.suffix.lower() in VIDEOS


def write_maps(folder: Path, name: str, maps: Mapping[str, NDArray[np.generic]]) -> None:
    """Raw predictions as NAME_TASK: class ids as 8-bit PNG, everything else as float32 NPY."""
    for task, values in maps.items():
        if np.issubdtype(values.dtype, np.integer):
            write_picture(folder / f"{name}_{task}.png", values.astype(np.uint8))
        else:
            write_array(folder / f"{name}_{task}.npy", values.astype(np.float32))


class Video:
    """Frames of a video file, one at a time.

    Raises:
        DataError: not a readable video.
    """

    def __init__(self, file: Path) -> None:
        self._capture = cv2.VideoCapture(str(file))
        if not self._capture.isOpened():
            raise DataError(f"{file}: not a readable video")
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.length = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self) -> Iterator[Picture]:
        while True:
            read, frame = self._capture.read()
            if not read:
                return
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)


class VideoWriter:
    """Pictures of one size to an MP4 file; see `writing_video`."""

    def __init__(self, file: Path, rate: float) -> None:
        self._file, self._rate = file, rate
        self._writer: cv2.VideoWriter | None = None

    def add(self, picture: Picture) -> None:
        """One more HxWx3 RGB frame, of the first one's size; odd sizes lose a row or column."""
        height, width = (side - side % 2 for side in picture.shape[:2])
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._file), code, self._rate, (width, height))
            if not self._writer.isOpened():
                raise DataError(f"{self._file}: this OpenCV cannot write MP4 videos")
        self._writer.write(cv2.cvtColor(picture[:height, :width], cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


@contextmanager
def writing_video(file: Path, rate: float) -> Iterator[VideoWriter]:
    """A video that takes its place when the block ends without error."""
    with replacing(file) as draft:
        writer = VideoWriter(draft, rate)
        try:
            yield writer
        finally:
            writer.close()
