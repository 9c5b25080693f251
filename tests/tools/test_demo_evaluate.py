"""Tools `evaluate.py` and `demo.py` on a trained run."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from densemtl.errors import CheckpointError, ConfigError, DataError
from densemtl.results.results import load_results
from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import make_tiny_experiment

TOOLS = Path(__file__).parents[2] / "tools"
Main = Callable[[list[str]], None]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train_experiment(
        make_tiny_experiment("train.epochs=1", "tasks=[semseg, depth, normals, edge]"),
        folder,
        "cpu",
    )
    return folder


@pytest.fixture(scope="module")
def evaluate() -> Main:
    return runpy.run_path(str(TOOLS / "evaluate.py"))["main"]


@pytest.fixture(scope="module")
def demo() -> Main:
    return runpy.run_path(str(TOOLS / "demo.py"))["main"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (37, 61, 3), dtype=np.uint8)
    cv2.imwrite(str(file), noise)
    return file


def test_evaluate_reproduces_results_of_the_run(
    trained: Path, evaluate: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "again.json"
    evaluate([str(trained), "--device", "cpu", "--output", str(file)])
    ours, theirs = load_results(file), load_results(trained)
    assert ours.weights_hash == theirs.weights_hash
    assert ours.tasks["depth"].value == pytest.approx(theirs.tasks["depth"].value, rel=1e-6)
    assert "abs_rel" in capsys.readouterr().out


def test_evaluate_accepts_another_split_and_overrides(
    trained: Path, evaluate: Main, tmp_path: Path
) -> None:
    file = tmp_path / "train.json"
    evaluate([str(trained), "data.train_images=3", "--split", "train", "--output", str(file)])
    assert load_results(file).images == 3
    assert load_results(file).split == "train"


def test_demo_writes_panel_and_raw_maps_of_an_image(
    trained: Path, demo: Main, photo: Path, tmp_path: Path
) -> None:
    demo([str(trained), str(photo), "--output", str(tmp_path / "out"), "--raw", "--device", "cpu"])
    panel = cv2.imread(str(tmp_path / "out" / "photo.png"))
    assert panel.shape[1] > 5 * 61
    maps = tmp_path / "out" / "maps"
    assert cv2.imread(str(maps / "semseg/photo.png"), cv2.IMREAD_UNCHANGED).shape == (37, 61)
    assert np.load(maps / "depth/photo.npy").shape == (37, 61)
    normals = np.load(maps / "normals/photo.npy")
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)


def test_flip_and_scales_change_the_maps(
    trained: Path, demo: Main, photo: Path, tmp_path: Path
) -> None:
    maps = []
    for name, options in (("a", []), ("b", ["--flip", "--scales", "1", "1.5"])):
        out = tmp_path / name
        demo([str(trained), str(photo), "--output", str(out), "--raw", "--device", "cpu", *options])
        maps.append(np.load(out / "maps" / "depth" / "photo.npy"))
    assert maps[0].shape == maps[1].shape
    assert not np.array_equal(*maps)


def test_demo_accepts_a_folder_and_a_split(
    trained: Path, demo: Main, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    demo(
        [str(trained), str(photo.parent), "--dataset", "val", "--count", "2", "--output", str(out)]
    )
    assert sorted(file.name for file in out.glob("*.png")) == [
        "photo.png",
        "val00000.png",
        "val00003.png",
    ]


def test_demo_writes_a_video_of_a_video(trained: Path, demo: Main, tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 10, (48, 32))
    for shade in (0, 90, 180):
        writer.write(np.full((32, 48, 3), shade, np.uint8))
    writer.release()
    demo([str(trained), str(film), "--output", str(tmp_path / "out")])
    capture = cv2.VideoCapture(str(tmp_path / "out" / "film.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert capture.get(cv2.CAP_PROP_FPS) == 10


def test_missing_or_corrupt_files_are_errors(trained: Path, demo: Main, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jpg: no such file"):
        demo([str(trained), str(tmp_path / "nowhere.jpg")])
    with pytest.raises(CheckpointError, match="no finished validation there yet"):
        demo([str(tmp_path), "--dataset", "val"])
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((trained / "best.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"broken\.safetensors: not a readable"):
        demo([str(broken), "--dataset", "val"])
    with pytest.raises(CheckpointError, match="does not fit the configured model"):
        demo([str(trained), "head.width=16", "--dataset", "val"])


def test_demo_writes_point_clouds_and_overlays(
    trained: Path, demo: Main, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, pattern = tmp_path / "out", str(tmp_path / "ph*.jpg")
    demo([str(trained), pattern, "--output", str(out), "--overlay", "0", "--points", "normals"])
    panel = cv2.imread(str(out / "photo.png"))
    cells = [panel[30:67, 8 + column * 69 : 69 + column * 69] for column in range(5)]
    assert all(np.array_equal(cell, cells[0]) for cell in cells)
    assert (out / "points" / "photo.ply").read_bytes().startswith(b"ply\nformat binary_little")
    assert "assuming a focal length of 0.81 image widths" in capsys.readouterr().out
    camera = ["--intrinsics", "50", "50", "30", "18"]
    demo([str(trained), pattern, "--output", str(out), "--points", "image", *camera])
    assert b"given: fx 50 fy 50 cx 30 cy 18" in (out / "points" / "photo.ply").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--overlay", "1.5"], "argument --overlay: 1.5 is not between 0 and 1"),
        (["--intrinsics", "1", "1", "0", "0"], "--intrinsics: requires --points"),
        (["--web"], "--web: accepts no inputs"),
    ],
)
def test_invalid_options_exit_with_2(
    demo: Main, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        demo(["run", "photo.jpg", *options])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_invalid_inputs_are_reported_before_output_is_written(
    trained: Path, demo: Main, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    out = ["--output", str(tmp_path / "out")]
    with pytest.raises(DataError, match="empty: nothing to show in this folder"):
        demo([str(trained), str(photo), str(tmp_path / "empty"), *out])
    with pytest.raises(ConfigError, match=r"no task 'height' for colors \(choose from image, sem"):
        demo([str(trained), str(photo), "--points", "height", *out])
    with pytest.raises(DataError, match="--webcam 99: no such camera"):
        demo([str(trained), "--webcam", "99", *out])
    assert not (tmp_path / "out").exists()


class Camera:
    """Fake camera with three frames, followed by Ctrl-C."""

    fps = 10.0

    def __init__(self, index: int) -> None:
        self.index = index

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from (np.full((32, 48, 3), shade, np.uint8) for shade in (0, 90, 180))
        raise KeyboardInterrupt


def test_webcam_video_is_saved_after_ctrl_c(
    trained: Path, demo: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densemtl.demo.renderer.Webcam", Camera)
    with pytest.raises(KeyboardInterrupt):
        demo([str(trained), "--webcam", "0", "--raw", "--output", str(tmp_path)])
    capture = cv2.VideoCapture(str(tmp_path / "webcam.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) >= 3
    names = [file.name for file in sorted((tmp_path / "maps" / "depth").glob("*.npy"))]
    assert names == [f"webcam_{index:06d}.npy" for index in range(3)]
