"""Reading and writing of videos: order of frames, frame rate, size, interruption and errors."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from densemtl.demo import video
from densemtl.demo.video import VideoReader, Webcam, fit_to_codec, repeat_to_frame_rate, write_video
from densemtl.errors import DataError, OutputError
from densemtl.types import RGBImage


def shade(value: int, height: int = 48, width: int = 64) -> RGBImage:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("rate", [10.0, 23.976, 29.97, 60.0])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_written_video_has_all_frames_rate_and_size(
    tmp_path: Path, rate: float, size: tuple[int, int]
) -> None:
    shades = [20 * index for index in range(12)]
    write_video(tmp_path / "film.mp4", rate, (shade(value, *size) for value in shades))
    film = VideoReader(tmp_path / "film.mp4")
    assert film.num_frames == 12
    assert film.fps == pytest.approx(rate, abs=1e-3)
    frames = list(film)
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    assert [frame.mean() for frame in frames] == pytest.approx(shades, abs=4)
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]


def test_written_video_keeps_rgb_order(tmp_path: Path) -> None:
    red = np.tile(np.array([200, 30, 60], np.uint8), (48, 64, 1))
    write_video(tmp_path / "film.mp4", 25, [red])
    (frame,) = VideoReader(tmp_path / "film.mp4")
    np.testing.assert_allclose(frame.mean((0, 1)), [200, 30, 60], atol=6)


def test_fit_to_codec_pads_odd_sides_and_downscales(rng: np.random.Generator) -> None:
    odd = rng.integers(0, 256, (5, 3, 3)).astype(np.uint8)
    fitted = fit_to_codec(odd)
    assert fitted.shape == (6, 4, 3)
    np.testing.assert_array_equal(fitted[:5, :3], odd)
    np.testing.assert_array_equal(fitted[5], fitted[4])
    np.testing.assert_array_equal(fitted[:, 3], fitted[:, 2])
    assert fit_to_codec(np.zeros((100, 10_000, 3), np.uint8)).shape == (42, 4096, 3)
    assert fit_to_codec(odd[:4, :2]).shape == (4, 2, 3)


def test_interrupted_video_contains_frames_so_far(tmp_path: Path) -> None:
    def interrupted() -> Iterator[RGBImage]:
        yield from (shade(value) for value in (0, 100, 200))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "film.mp4", 25, interrupted())
    assert len(list(VideoReader(tmp_path / "film.mp4"))) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, DataError])
def test_failed_or_empty_video_keeps_existing_file(
    tmp_path: Path, fault: type[BaseException]
) -> None:
    def failing() -> Iterator[RGBImage]:
        if fault is DataError:
            yield shade(0)
        raise fault

    old = tmp_path / "film.mp4"
    old.write_bytes(b"an earlier film")
    with pytest.raises(fault):
        write_video(old, 25, failing())
    assert old.read_bytes() == b"an earlier film"
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize("max_file_size", [0, 2000, 7000])
def test_video_on_a_full_disk_is_an_error(
    tmp_path: Path, rng: np.random.Generator, max_file_size: int
) -> None:
    """A limit of the file size simulates a full disk."""
    frames = rng.integers(0, 256, (6, 48, 64, 3)).astype(np.uint8)
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, old_limit[1]))
    try:
        message = r"film.mp4: cannot be written \(.*the disk may be full"
        with pytest.raises(OutputError, match=message):
            write_video(tmp_path / "film.mp4", 25, iter(frames))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    assert list(tmp_path.iterdir()) == []


def test_frames_are_read_lazily(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 25, (shade(value) for value in range(0, 200, 10)))
    alive = []

    def lazily() -> Iterator[RGBImage]:
        for count, frame in enumerate(VideoReader(tmp_path / "film.mp4")):
            alive.append(count)
            yield frame

    frames = lazily()
    next(frames)
    assert alive == [0]


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\0\0\0\x18ftypmp42" + bytes(5000)])
def test_corrupt_video_is_data_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "film.mp4"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"film\.mp4: not a readable video"):
        VideoReader(file)


def test_ffmpeg_prints_no_messages(tmp_path: Path) -> None:
    """Run in a new process, as FFmpeg reads its log level only once."""
    file = tmp_path / "film.mp4"
    file.write_bytes(b"no video at all")
    lines = [
        "from pathlib import Path",
        "from densemtl import cli",
        "from densemtl.demo import video",
    ]
    lines.append(f"cli.run_main(lambda: video.VideoReader(Path({str(file)!r})))")
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {file}: not a readable video")
    assert done.stderr.count("\n") == 1


def test_truncated_video_prints_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    file = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(10):
        writer.write(rng.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    writer.release()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    film = VideoReader(file)
    count = len(list(film))
    assert 0 < count < film.num_frames == 10
    assert f"{file}: only {count} of 10 frames can be read" in capsys.readouterr().err


def test_missing_camera_is_data_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="--webcam 99: no such camera"):
        Webcam(99)
    assert capfd.readouterr() == ("", "")


class FakeCapture:
    """Fake `cv2.VideoCapture` with three frames and an unknown frame rate."""

    def __init__(self, source: int) -> None:
        self.left = [shade(value) for value in (0, 1, 2)]

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, key: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, RGBImage | None]:
        return (True, self.left.pop(0)) if self.left else (False, None)

    def release(self) -> None:
        self.left = []


def test_webcam_yields_all_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video.cv2, "VideoCapture", FakeCapture)
    camera = Webcam(0)
    assert camera.fps == video.DEFAULT_FPS
    assert [frame[0, 0, 0] for frame in camera] == [0, 1, 2]


def test_repeat_to_frame_rate_repeats_slow_frames() -> None:
    seconds = iter([0.0, 0.1, 0.5, 0.51, 1.0])
    film = list(
        repeat_to_frame_rate([shade(value) for value in range(4)], 10, lambda: next(seconds))
    )
    assert [frame[0, 0, 0] for frame in film] == [0, 1, 1, 1, 1, 2, 3, 3, 3, 3]
