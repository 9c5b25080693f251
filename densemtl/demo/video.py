"""Videos and webcams in, videos out: one frame in memory at a time, whatever their length."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np

from densemtl.io.atomic import replacing
from densemtl.errors import DataError
from densemtl.visualization.panels import Picture

USUAL_RATE = 25.0
"""Frames a second where a file or camera does not tell."""

LARGEST_SIDE = 4096
"""Larger pictures are shrunk before they go into a film: few players show more."""


class Video:
    """Frames of a video file, once.

    Attributes:
        rate: frames a second.
        length: number of frames as the file tells it, 0 if it does not.

    Raises:
        DataError: not a video that OpenCV can read; of the frames, if there is none.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._capture = file, _open(str(file))
        if not self._capture.isOpened():
            raise DataError(f"{file}: not a readable video; convert it to MP4, or copy it again")
        self.rate = _rate(self._capture)
        self.length = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self) -> Iterator[Picture]:
        count = 0
        for frame in _frames(self._capture):
            count += 1
            yield frame
        if not count:
            raise DataError(f"{self._file}: no frame of this video can be read; copy it again")
        if count < self.length:
            print(f"{self._file}: only {count} of {self.length} frames", file=sys.stderr)


class Webcam:
    """Frames of a camera until someone stops it.

    Args:
        index: 0 is the first camera.

    Raises:
        DataError: no such camera.
    """

    def __init__(self, index: int) -> None:
        self._capture = _open(index)
        if not self._capture.isOpened():
            raise DataError(f"--webcam {index}: no such camera; 0 is the first one")
        self.rate = _rate(self._capture)

    def __iter__(self) -> Iterator[Picture]:
        return _frames(self._capture)


def in_real_time(
    pictures: Iterable[Picture], rate: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[Picture]:
    """Each picture as often as a film needs that lasts as long as the pictures took to come.

    Args:
        pictures: made from a camera, slower than it films.
        rate: frames a second of the film.
        clock: tells seconds.
    """
    start, shown = clock(), 0
    for picture in pictures:
        copies = max(round((clock() - start) * rate) - shown, 1)
        shown += copies
        yield from repeat(picture, copies)


class VideoWriter:
    """Pictures of one size to an MP4 file; see `writing_video`."""

    def __init__(self, file: Path, rate: float) -> None:
        self._file, self._rate = file, rate
        self._writer: cv2.VideoWriter | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been added yet."""
        return self._writer is None

    def add(self, picture: Picture) -> None:
        """One more HxWx3 RGB frame of the first one's size."""
        picture = fit(picture)
        if self._writer is None:
            _hush_ffmpeg()
            code, (height, width) = cv2.VideoWriter.fourcc(*"mp4v"), picture.shape[:2]
            self._writer = cv2.VideoWriter(str(self._file), code, self._rate, (width, height))
            if not self._writer.isOpened():
                raise DataError(f"{self._file}: no MP4 video can be written there by this OpenCV")
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


def fit(picture: Picture) -> Picture:
    """As codecs want it: no side above `LARGEST_SIDE`, and even ones, the last line repeated."""
    height, width = picture.shape[:2]
    if max(height, width) > LARGEST_SIDE:
        share = LARGEST_SIDE / max(height, width)
        height, width = max(round(height * share), 1), max(round(width * share), 1)
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


@contextmanager
def writing_video(file: Path, rate: float) -> Iterator[VideoWriter]:
    """A video that takes its place when the block ends without error."""
    with replacing(file) as draft:
        writer = VideoWriter(draft, rate)
        try:
            yield writer
        finally:
            writer.close()


def write_video(file: Path, rate: float, pictures: Iterable[Picture]) -> None:
    """A whole video, or, after Ctrl-C, a whole file of what was done so far.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the file is in its place.
    """
    with writing_video(file, rate) as writer:
        interrupted = _add_all(writer, pictures)
        if interrupted and writer.is_empty:
            raise KeyboardInterrupt
    if interrupted:
        print(f"stopped; what was done so far: {file}")
        raise KeyboardInterrupt


def _add_all(writer: VideoWriter, pictures: Iterable[Picture]) -> bool:
    """Whether Ctrl-C came in between."""
    try:
        for picture in pictures:
            writer.add(picture)
    except KeyboardInterrupt:
        return True
    return False


def _open(source: str | int) -> cv2.VideoCapture:
    _hush_ffmpeg()
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _hush_ffmpeg() -> None:
    """It reads this once, when it is first needed; what is wrong with a file is told by us."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def _rate(capture: cv2.VideoCapture) -> float:
    told = capture.get(cv2.CAP_PROP_FPS)
    return float(told) if np.isfinite(told) and told > 0 else USUAL_RATE


def _frames(capture: cv2.VideoCapture) -> Iterator[Picture]:
    while True:
        read, frame = capture.read()
        if not read:
            capture.release()
            return
        yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
