"""Stored predictions are read, paired and scored, and faults named."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from densemtl.errors import ConfigError, DataError
from densemtl.evaluation import edges_cli
from densemtl.evaluation.boundary_files import (
    pair_files,
    read_boundary_probabilities,
    read_ground_truths,
)
from densemtl.ops.region_boundaries import find_region_boundaries

SIZE = (40, 56)


def line(row, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[row, 8:-8] = 1
    return mask


def write(file, array):
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, array)
    else:
        assert cv2.imwrite(str(file), array)
    return file


def annotators(file, maps, field="Boundaries"):
    cells = np.empty((1, len(maps)), object)
    for index, each in enumerate(maps):
        cells[0, index] = {field: each}
    file.parent.mkdir(exist_ok=True)
    savemat(file, {"groundTruth": cells})
    return file


@pytest.fixture
def folders(tmp_path):
    """Three images: one perfect, one with a false line, one with two annotators."""
    predictions, truths = tmp_path / "predictions", tmp_path / "truths"
    write(predictions / "a.png", line(20) * 255)
    write(truths / "a.png", line(20) * 255)
    write(predictions / "b.npy", (line(10) + line(30) * 0.5).astype(np.float32))
    write(truths / "b.npy", line(10))
    write(predictions / "c.png", line(20).astype(np.uint16) * 65535)
    annotators(truths / "c.mat", [line(20), line(20) + line(30)])
    return predictions, truths


def run(folders, *options):
    out = folders[0].parent / "out.json"
    given = ["--predictions", str(folders[0]), "--ground-truth", str(folders[1])]
    edges_cli.main([*given, "--json", str(out), *options])
    return json.loads(out.read_text())


@pytest.mark.parametrize("options", [[], ["--no-nms"]])
def test_two_folders_are_scored(folders, options, capsys):
    report = run(folders, *options)
    assert report["images"] == 3
    # At high thresholds all is right, and one of five lines is missed.
    assert report["precision"] == 100
    assert report["recall"] == 80
    assert report["odsF"] == report["oisF"] == pytest.approx(2 * 80 / 1.8)
    assert report["f_of_image"] == pytest.approx({"a": 100, "b": 100, "c": 80})
    assert f"odsF {report['odsF']:.2f}" in capsys.readouterr().out


def test_the_report_says_how_it_came_about(folders):
    report = run(folders, "--no-nms", "--thresholds", "9", "--max-dist", "0.011")
    assert report["rules"]["max_distance"] == 0.011
    assert report["rules"]["protocol"]["thresholds"] == [k / 10 for k in range(1, 10)]
    assert report["rules"]["protocol"]["nms"] is False
    assert len(report["curve"]["f"]) == 9
    assert run(folders)["rules"]["protocol"]["nms"] is True


def test_processes_change_nothing(folders):
    assert run(folders, "--workers", "2") == run(folders)


def test_a_list_chooses_images(folders, tmp_path):
    chosen = tmp_path / "val.txt"
    chosen.write_text("a\nb\n")
    (folders[0] / "c.png").unlink()
    assert run(folders, "--list", str(chosen))["images"] == 2


def test_the_curve_is_drawn(folders, tmp_path):
    run(folders, "--plot", str(tmp_path / "plot.png"))
    assert cv2.imread(str(tmp_path / "plot.png")).std() > 1


def test_nothing_to_find_is_null(tmp_path):
    folders = tmp_path / "p", tmp_path / "t"
    for folder in folders:
        write(folder / "x.png", np.zeros(SIZE, np.uint8))
    report = run(folders, "--plot", str(tmp_path / "plot.png"))
    assert report["odsF"] is None
    assert report["AP"] is None


@pytest.mark.parametrize(
    ("array", "suffix"),
    [
        (line(5) * 255, ".png"),
        (line(5).astype(np.uint16) * 65535, ".png"),
        (line(5).astype(np.float64), ".npy"),
        (line(5)[None].astype(np.float32), ".npy"),
        (line(5).astype(bool), ".npy"),
    ],
)
def test_predictions_of_all_kinds(array, suffix, tmp_path):
    found = read_boundary_probabilities(write(tmp_path / f"x{suffix}", array))
    assert found.dtype == np.float32
    assert np.array_equal(found, line(5))


def test_levels_are_shares_of_the_largest(tmp_path):
    eight = read_boundary_probabilities(write(tmp_path / "x.png", np.full(SIZE, 51, np.uint8)))
    sixteen = read_boundary_probabilities(
        write(tmp_path / "y.png", np.full(SIZE, 13107, np.uint16))
    )
    assert eight[0, 0] == sixteen[0, 0] == np.float32(0.2)


def test_ground_truth_of_all_kinds(tmp_path):
    regions = np.repeat(np.array([[3, 7, 9]], np.uint8), 12, 0).repeat(5, 1)
    expected = find_region_boundaries(regions)
    assert expected.sum() == 24
    assert np.array_equal(read_ground_truths(write(tmp_path / "r.png", regions))[0], expected)
    two = np.where(regions == 9, 7, regions)
    assert read_ground_truths(write(tmp_path / "two.npy", two))[0].sum() == 12
    (drawn,) = read_ground_truths(write(tmp_path / "b.png", line(4) * 255))
    assert np.array_equal(drawn, line(4) == 1)
    assert not np.array_equal(read_ground_truths(tmp_path / "b.png", regions=True)[0], drawn)
    both = read_ground_truths(annotators(tmp_path / "m.mat", [line(4), line(9)]))
    assert [np.flatnonzero(one.any(1)).tolist() for one in both] == [[4], [9]]
    segmented = annotators(tmp_path / "s.mat", [regions.astype(np.uint16)], "Segmentation")
    assert np.array_equal(read_ground_truths(segmented)[0], expected)


def faults(folders):
    predictions, truths = folders
    yield lambda: (truths / "a.png").unlink(), "truths: no file for 1 of 3 images, such as 'a'"
    yield lambda: (predictions / "b.npy").unlink(), "predictions: no file for 1 of 3"
    yield lambda: write(truths / "a.png", line(3, (9, 30))), r"a.png: is \(40, 56\).*\(9, 30\)"
    yield lambda: (truths / "a.png").write_bytes(b"no picture"), "a.png: truncated"
    yield lambda: (predictions / "b.npy").write_bytes(b"no array"), "b.npy: cannot be read"
    yield lambda: (truths / "c.mat").write_bytes(b"no matlab"), "c.mat: cannot be read"
    yield lambda: savemat(truths / "c.mat", {"x": 1}), "c.mat: holds no annotators"
    yield (
        lambda: annotators(truths / "c.mat", [line(1)], "Other"),
        "c.mat: an annotator has",
    )
    yield lambda: write(predictions / "b.npy", line(3) * 1.5), "b.npy: probabilities are"
    yield lambda: write(predictions / "b.npy", line(3) * np.nan), "b.npy: probabilities are"
    yield lambda: write(predictions / "a.png", np.zeros((*SIZE, 3), np.uint8)), "one number a pixel"


@pytest.mark.parametrize("index", range(11))
def test_faults_are_named(folders, index):
    harm, message = list(faults(folders))[index]
    harm()
    with pytest.raises(DataError, match=message) as caught:
        run(folders)
    assert "\n" not in str(caught.value)
    assert not (folders[0].parent / "out.json").exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no folder"):
        pair_files(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize(
    ("option", "value"), [("--max-dist", "0"), ("--max-dist", "nan"), ("--thresholds", "0")]
)
def test_options_out_of_range(folders, option, value):
    with pytest.raises(ConfigError, match=option):
        run(folders, option, value)
