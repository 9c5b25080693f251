"""Writing and reading of prediction files, also in the formats of other projects."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from densemtl.errors import DataError, OutputError
from densemtl.evaluation.prediction_files import (
    find_predictions,
    read_prediction,
    to_decoded_batch,
    write_prediction,
)
from densemtl.evaluation.prediction_formats import ReadOptions
from densemtl.ops.layouts import to_hwc

SIZE = (13, 9)


def decoded(task, seed=0):
    logits = 3 * torch.randn(1, task.channels, *SIZE, generator=torch.Generator().manual_seed(seed))
    return task.decode(logits)


def only_file(folder: Path) -> Path:
    (file,) = (path for path in folder.rglob("*") if path.is_file())
    return file


def test_write_and_read_round_trip(any_task, tmp_path):
    prediction = decoded(any_task)
    write_prediction(tmp_path, any_task, "0001", to_hwc(prediction[0]))
    found = find_predictions(tmp_path, any_task.name)
    assert found == {"0001": only_file(tmp_path)}
    back = to_decoded_batch(any_task, read_prediction(found["0001"], any_task, SIZE, ReadOptions()))
    assert back.shape == prediction.shape
    torch.testing.assert_close(back.to(prediction.dtype), prediction, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("semseg", "semseg/a.png"),
        ("edge", "edge/a.npy"),
        ("depth", "depth/a.npy"),
        ("normals", "normals/a.npy"),
    ],
)
def test_file_formats_of_tasks(make_task, tmp_path, name, expected):
    task = make_task(name)
    write_prediction(tmp_path, task, "a", to_hwc(decoded(task)[0]))
    file = tmp_path / expected
    stored = np.load(file) if file.suffix == ".npy" else cv2.imread(str(file), -1)
    types = {"semseg": np.uint8, "edge": np.float32, "depth": np.float32, "normals": np.float32}
    assert stored.dtype == types[name]
    assert stored.shape == ((*SIZE, 3) if name == "normals" else SIZE)


@pytest.mark.parametrize("name", ["2008.0001", "kitchen/0001", "a b"])
def test_image_ids_with_dots_slashes_and_spaces(make_task, tmp_path, name):
    task = make_task("depth")
    write_prediction(tmp_path, task, name, to_hwc(decoded(task)[0]))
    assert find_predictions(tmp_path, "depth") == {name: tmp_path / "depth" / f"{name}.npy"}


@pytest.mark.parametrize("name", ["../0001", "a/../../../0001", "/tmp/0001", ""])
def test_image_ids_outside_the_folder_raise_an_error(make_task, tmp_path, name):
    task = make_task("semseg")
    with pytest.raises(DataError, match="would lie outside"):
        write_prediction(tmp_path / "out", task, name, np.zeros(SIZE, np.uint8))
    assert list(tmp_path.rglob("*")) == []


def test_files_are_written_atomically(make_task, tmp_path, monkeypatch):
    task = make_task("depth")
    write_prediction(tmp_path, task, "0001", np.ones(SIZE, np.float32))

    def broken(file: Path, array: object) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", broken)
    with pytest.raises(OutputError, match="disk full"):
        write_prediction(tmp_path, task, "0001", np.zeros(SIZE, np.float32))
    assert (np.load(only_file(tmp_path)) == 1).all()


def test_npy_files_are_preferred_and_other_files_ignored(tmp_path):
    folder = tmp_path / "sal"
    folder.mkdir()
    for name in ("a.png", "a.npy", "b.mat", "c.PNG", "readme.txt", ".d.png"):
        (folder / name).touch()
    found = find_predictions(tmp_path, "saliency")
    assert found is not None
    assert {name: file.name for name, file in found.items()} == {
        "a": "a.npy",
        "b": "b.mat",
        "c": "c.PNG",
    }
    assert find_predictions(tmp_path, "depth") is None


def test_reads_class_ids_with_a_palette(make_task, tmp_path):
    ids = np.arange(3, dtype=np.uint8).repeat(4).reshape(3, 4)
    image = Image.fromarray(ids, mode="P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "a.png")
    prediction = read_prediction(tmp_path / "a.png", make_task("semseg"), (3, 4), ReadOptions())
    np.testing.assert_array_equal(prediction, ids)


def test_channels_of_normals_images_are_rgb(make_task, tmp_path):
    image = np.tile(np.array([255, 128, 0], np.uint8), (*SIZE, 1))
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    prediction = read_prediction(tmp_path / "a.png", make_task("normals"), SIZE, ReadOptions())
    np.testing.assert_allclose(prediction[0, 0], [1, 0, -1], atol=0.004)


def test_mat_file_with_one_array_needs_no_key(make_task, tmp_path):
    meters = np.random.default_rng(0).uniform(1, 9, SIZE)
    savemat(tmp_path / "a.mat", {"depth": meters, "scale": 1.0, "note": "of the network"})
    prediction = read_prediction(tmp_path / "a.mat", make_task("depth"), SIZE, ReadOptions())
    np.testing.assert_allclose(prediction, meters, rtol=1e-6)


def test_mat_file_with_several_arrays_needs_a_key(make_task, tmp_path):
    savemat(tmp_path / "a.mat", {"depth": np.ones(SIZE), "raw": np.zeros(SIZE)})
    task = make_task("depth")
    with pytest.raises(DataError, match=r"a\.mat: contains depth, raw; .*--mat-key"):
        read_prediction(tmp_path / "a.mat", task, SIZE, ReadOptions())
    assert (read_prediction(tmp_path / "a.mat", task, SIZE, ReadOptions(mat_key="raw")) == 0).all()
    with pytest.raises(DataError, match="contains depth, raw"):
        read_prediction(tmp_path / "a.mat", task, SIZE, ReadOptions(mat_key="row"))


def test_other_sizes_raise_an_error_unless_resizing_is_allowed(make_task, tmp_path):
    ids = np.array([[0, 2], [1, 0]], np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), ids)
    np.save(tmp_path / "a.npy", np.array([[1.0, 3.0]]))
    semseg, depth = make_task("semseg"), make_task("depth")
    with pytest.raises(DataError, match=r"a\.png: the prediction has 2x2 pixels, its image 4x6"):
        read_prediction(tmp_path / "a.png", semseg, (4, 6), ReadOptions())
    resized = read_prediction(tmp_path / "a.png", semseg, (4, 6), ReadOptions(allow_resize=True))
    np.testing.assert_array_equal(resized, ids.repeat(2, 0).repeat(3, 1))
    resized = read_prediction(tmp_path / "a.npy", depth, (1, 4), ReadOptions(allow_resize=True))
    np.testing.assert_allclose(resized, [[1, 1.5, 2.5, 3]])


def test_truncated_file_raises_an_error(make_task, tmp_path):
    task = make_task("depth")
    write_prediction(tmp_path, task, "a", np.ones(SIZE, np.float32))
    file = only_file(tmp_path)
    file.write_bytes(file.read_bytes()[:150])
    with pytest.raises(DataError, match=r"a\.npy: cannot be read"):
        read_prediction(file, task, SIZE, ReadOptions())
