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

from densemtl.errors import DataError
from densemtl.io.atomic import atomic_write
from densemtl.types import RGBImage

DEFAULT_FPS = 25.0
"""Frames a second where a file or camera does not tell."""

MAX_VIDEO_SIDE = 4096
"""Larger pictures are shrunk before they go into a film: few players show more."""


class VideoReader:
    """Frames of a video file, once.

    Attributes:
        fps: frames a second.
        num_frames: number of frames as the file tells it, 0 if it does not.

    Raises:
        DataError: not a video that OpenCV can read; of the frames, if there is none.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._capture = file, _open_capture(str(file))
        if not self._capture.isOpened():
            raise DataError(f"{file}: not a readable video; convert it to MP4, or copy it again")
        self.fps = _read_fps(self._capture)
        self.num_frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self) -> Iterator[RGBImage]:
        count = 0
        for frame in _iter_frames(self._capture):
            count += 1
            yield frame
        if not count:
            raise DataError(f"{self._file}: no frame of this video can be read; copy it again")
        if count < self.num_frames:
            print(f"{self._file}: only {count} of {self.num_frames} frames", file=sys.stderr)


class Webcam:
    """Frames of a camera until someone stops it.

    Args:
        index: 0 is the first camera.

    Raises:
        DataError: no such camera.
    """

    def __init__(self, index: int) -> None:
        self._capture = _open_capture(index)
        if not self._capture.isOpened():
            raise DataError(f"--webcam {index}: no such camera; 0 is the first one")
        self.fps = _read_fps(self._capture)

    def __iter__(self) -> Iterator[RGBImage]:
        return _iter_frames(self._capture)


def repeat_to_frame_rate(
    frames: Iterable[RGBImage], fps: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[RGBImage]:
    """Each picture as often as a film needs that lasts as long as the pictures took to come.

    Args:
        frames: made from a camera, slower than it films.
        fps: frames a second of the film.
        clock: tells seconds.
    """
    start, shown = clock(), 0
    for picture in frames:
        copies = max(round((clock() - start) * fps) - shown, 1)
        shown += copies
        yield from repeat(picture, copies)


class VideoWriter:
    """Pictures of one size to an MP4 file; see `open_video_writer`."""

    def __init__(self, file: Path, fps: float) -> None:
        self._file, self._fps = file, fps
        self._writer: cv2.VideoWriter | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been added yet."""
        return self._writer is None

    def add(self, frame: RGBImage) -> None:
        """One more HxWx3 RGB frame of the first one's size."""
        frame = fit_to_codec(frame)
        if self._writer is None:
            _silence_ffmpeg()
            code, (height, width) = cv2.VideoWriter.fourcc(*"mp4v"), frame.shape[:2]
            self._writer = cv2.VideoWriter(str(self._file), code, self._fps, (width, height))
            if not self._writer.isOpened():
                raise DataError(f"{self._file}: no MP4 video can be written there by this OpenCV")
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


def fit_to_codec(frame: RGBImage) -> RGBImage:
    """As codecs want it: no side above `MAX_VIDEO_SIDE`, and even ones, the last line repeated."""
    height, width = frame.shape[:2]
    if max(height, width) > MAX_VIDEO_SIDE:
        share = MAX_VIDEO_SIDE / max(height, width)
        height, width = max(round(height * share), 1), max(round(width * share), 1)
        frame = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


@contextmanager
def open_video_writer(file: Path, fps: float) -> Iterator[VideoWriter]:
    """A video that takes its place when the block ends without error."""
    with atomic_write(file) as tmp_path:
        writer = VideoWriter(tmp_path, fps)
        try:
            yield writer
        finally:
            writer.close()


def write_video(file: Path, fps: float, frames: Iterable[RGBImage]) -> None:
    """A whole video, or, after Ctrl-C, a whole file of what was done so far.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the file is in its place.
    """
    with open_video_writer(file, fps) as writer:
        interrupted = _write_frames(writer, frames)
        if interrupted and writer.is_empty:
            raise KeyboardInterrupt
    if interrupted:
        print(f"stopped; what was done so far: {file}")
        raise KeyboardInterrupt


def _write_frames(writer: VideoWriter, frames: Iterable[RGBImage]) -> bool:
    """Whether Ctrl-C came in between."""
    try:
        for picture in frames:
            writer.add(picture)
    except KeyboardInterrupt:
        return True
    return False


def _open_capture(source: str | int) -> cv2.VideoCapture:
    _silence_ffmpeg()
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _silence_ffmpeg() -> None:
    """It reads this once, when it is first needed; what is wrong with a file is told by us."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def _read_fps(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if np.isfinite(fps) and fps > 0 else DEFAULT_FPS


def _iter_frames(capture: cv2.VideoCapture) -> Iterator[RGBImage]:
    while True:
        read, frame = capture.read()
        if not read:
            capture.release()
            return
        yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
