"""Reading of videos and cameras, and writing of videos, with one frame in memory at a time."""

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
"""Frames per second if a file or camera does not state them."""

MAX_VIDEO_SIDE = 4096
"""Maximum height and width of video frames in pixels; few players support larger ones."""


class VideoReader:
    """Iterable over the frames of a video file, which can be iterated only once.

    Iteration raises a `DataError` if no frame can be read.

    Args:
        file: video file.

    Attributes:
        fps: frames per second.
        num_frames: number of frames stated in the file; 0 if it is not stated.

    Raises:
        DataError: if OpenCV cannot read the file.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._capture = file, _open_capture(str(file))
        if not self._capture.isOpened():
            raise DataError(f"{file}: not a readable video (convert it to MP4 or copy it again)")
        self.fps = _read_fps(self._capture)
        self.num_frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self) -> Iterator[RGBImage]:
        count = 0
        for frame in _iter_frames(self._capture):
            count += 1
            yield frame
        if not count:
            raise DataError(f"{self._file}: no frame can be read (copy the video again)")
        if count < self.num_frames:
            print(
                f"{self._file}: only {count} of {self.num_frames} frames can be read",
                file=sys.stderr,
            )


class Webcam:
    """Iterable over the frames of a camera, without end.

    Args:
        index: index of the camera; 0 is the first one.

    Attributes:
        fps: frames per second.

    Raises:
        DataError: if the camera does not exist.
    """

    def __init__(self, index: int) -> None:
        self._capture = _open_capture(index)
        if not self._capture.isOpened():
            raise DataError(f"--webcam {index}: no such camera (0 is the first one)")
        self.fps = _read_fps(self._capture)

    def __iter__(self) -> Iterator[RGBImage]:
        return _iter_frames(self._capture)


def repeat_to_frame_rate(
    frames: Iterable[RGBImage], fps: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[RGBImage]:
    """Repeat frames so that the video has the duration in which they were produced.

    Args:
        frames: frames that are produced more slowly than `fps`.
        fps: frames per second of the video.
        clock: function that returns the time in seconds.

    Yields:
        Each frame, at least once.
    """
    start, count = clock(), 0
    for frame in frames:
        copies = max(round((clock() - start) * fps) - count, 1)
        count += copies
        yield from repeat(frame, copies)


class VideoWriter:
    """Writer of frames of equal size to an MP4 file; see `open_video_writer`.

    Args:
        file: path of the video.
        fps: frames per second.

    Attributes:
        num_frames: number of frames that were added.
    """

    def __init__(self, file: Path, fps: float) -> None:
        self._file, self._fps = file, fps
        self._writer: cv2.VideoWriter | None = None
        self.num_frames = 0

    @property
    def is_empty(self) -> bool:
        """Whether no frame has been added yet."""
        return self._writer is None

    def add(self, frame: RGBImage) -> None:
        """Add a frame.

        Args:
            frame: RGB image of the same size as the first frame, shape (H, W, 3), uint8.

        Raises:
            OSError: if OpenCV cannot write MP4 videos to this path.
        """
        frame = fit_to_codec(frame)
        if self._writer is None:
            _silence_ffmpeg()
            code, (height, width) = cv2.VideoWriter.fourcc(*"mp4v"), frame.shape[:2]
            self._writer = cv2.VideoWriter(str(self._file), code, self._fps, (width, height))
            if not self._writer.isOpened():
                raise OSError("the disk may be full, or this OpenCV build cannot write MP4 videos")
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.num_frames += 1

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()

    def count_lost_frames(self) -> int:
        """Count the frames of the finished file that cannot be read.

        OpenCV's encoder reports no errors, such as a full disk.

        Returns:
            Number of added frames minus that of readable frames.
        """
        capture, count = _open_capture(str(self._file)), 0
        while capture.grab():
            count += 1
        capture.release()
        return self.num_frames - count


def fit_to_codec(frame: RGBImage) -> RGBImage:
    """Fit a frame to the requirements of video codecs.

    Frames larger than `MAX_VIDEO_SIDE` are downscaled. Odd heights and widths are made even by
    repeating the last row or column.

    Args:
        frame: RGB image, shape (H, W, 3), uint8.

    Returns:
        The fitted frame.

    Example:
        >>> fit_to_codec(np.zeros((5, 8, 3), np.uint8)).shape
        (6, 8, 3)
    """
    height, width = frame.shape[:2]
    if max(height, width) > MAX_VIDEO_SIDE:
        scale = MAX_VIDEO_SIDE / max(height, width)
        height, width = max(round(height * scale), 1), max(round(width * scale), 1)
        frame = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


@contextmanager
def open_video_writer(file: Path, fps: float) -> Iterator[VideoWriter]:
    """Open a video for writing, which replaces `file` only if the block ends without error.

    Args:
        file: path of the video.
        fps: frames per second.

    Yields:
        A writer of frames.

    Raises:
        OutputError: if the file cannot be written or lacks frames, for example because the disk is
            full.
    """
    with atomic_write(file) as tmp_path:
        writer = VideoWriter(tmp_path, fps)
        try:
            yield writer
        finally:
            writer.close()
        if lost := 0 if writer.is_empty else writer.count_lost_frames():
            raise OSError(f"{lost} of {writer.num_frames} frames are lost; the disk may be full")


def write_video(file: Path, fps: float, frames: Iterable[RGBImage]) -> None:
    """Write a video; after Ctrl-C, write a valid video of the frames so far.

    Args:
        file: path of the video.
        fps: frames per second.
        frames: RGB images of equal size, shape (H, W, 3), uint8.

    Raises:
        OutputError: as for `open_video_writer`.
        KeyboardInterrupt: after Ctrl-C; the video has been saved if it has any frames.
    """
    with open_video_writer(file, fps) as writer:
        interrupted = _write_frames(writer, frames)
        if interrupted and writer.is_empty:
            raise KeyboardInterrupt
    if interrupted:
        print(f"interrupted; frames so far: {file}")
        raise KeyboardInterrupt


def _write_frames(writer: VideoWriter, frames: Iterable[RGBImage]) -> bool:
    """Write all frames and return whether Ctrl-C interrupted this."""
    try:
        for frame in frames:
            writer.add(frame)
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
    """Disable log messages of FFmpeg, as unreadable files are reported by exceptions.

    FFmpeg reads this variable only once, before its first use.
    """
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
