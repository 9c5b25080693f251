"""Boundary F-measure of stored predictions: reading, pairing, scores and error messages."""

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
    """Write a .mat file in the format of the Berkeley benchmark."""
    cells = np.empty((1, len(maps)), object)
    for index, boundaries in enumerate(maps):
        cells[0, index] = {field: boundaries}
    file.parent.mkdir(exist_ok=True)
    savemat(file, {"groundTruth": cells})
    return file


@pytest.fixture
def folders(tmp_path):
    """Three images: a perfect one, one with a false line, one with two annotators."""
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
    paths = ["--predictions", str(folders[0]), "--ground-truth", str(folders[1])]
    edges_cli.main([*paths, "--json", str(out), *options])
    return json.loads(out.read_text())


@pytest.mark.parametrize("options", [[], ["--no-nms"]])
def test_scores_of_two_folders(folders, options, capsys):
    report = run(folders, *options)
    assert report["images"] == 3
    # At high thresholds all predictions are correct, and one of five lines is missed.
    assert report["precision"] == 100
    assert report["recall"] == 80
    assert report["odsF"] == report["oisF"] == pytest.approx(2 * 80 / 1.8)
    assert report["f_of_image"] == pytest.approx({"a": 100, "b": 100, "c": 80})
    assert f"odsF {report['odsF']:.2f}" in capsys.readouterr().out


def test_report_contains_options(folders):
    report = run(folders, "--no-nms", "--thresholds", "9", "--max-dist", "0.011")
    assert report["options"]["max_distance"] == 0.011
    assert report["options"]["protocol"]["thresholds"] == [k / 10 for k in range(1, 10)]
    assert report["options"]["protocol"]["nms"] is False
    assert len(report["curve"]["f"]) == 9
    assert run(folders)["options"]["protocol"]["nms"] is True


def test_number_of_workers_does_not_change_report(folders):
    assert run(folders, "--workers", "2") == run(folders)


def test_list_selects_images(folders, tmp_path):
    list_file = tmp_path / "val.txt"
    list_file.write_text("a\nb\n")
    (folders[0] / "c.png").unlink()
    assert run(folders, "--list", str(list_file))["images"] == 2


@pytest.mark.usefixtures("drawn_figures")
def test_plot_is_written(folders, tmp_path):
    run(folders, "--plot", str(tmp_path / "plot.png"))
    assert cv2.imread(str(tmp_path / "plot.png")).std() > 1


def test_scores_without_true_boundaries_are_null(tmp_path):
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
def test_reads_predictions_of_all_formats(array, suffix, tmp_path):
    probability = read_boundary_probabilities(write(tmp_path / f"x{suffix}", array))
    assert probability.dtype == np.float32
    assert np.array_equal(probability, line(5))


def test_integer_probabilities_are_divided_by_maximum(tmp_path):
    from_8_bits = read_boundary_probabilities(
        write(tmp_path / "x.png", np.full(SIZE, 51, np.uint8))
    )
    from_16_bits = read_boundary_probabilities(
        write(tmp_path / "y.png", np.full(SIZE, 13107, np.uint16))
    )
    assert from_8_bits[0, 0] == from_16_bits[0, 0] == np.float32(0.2)


def test_reads_ground_truth_of_all_formats(tmp_path):
    regions = np.repeat(np.array([[3, 7, 9]], np.uint8), 12, 0).repeat(5, 1)
    expected = find_region_boundaries(regions)
    assert expected.sum() == 24
    assert np.array_equal(read_ground_truths(write(tmp_path / "r.png", regions))[0], expected)
    two = np.where(regions == 9, 7, regions)
    assert read_ground_truths(write(tmp_path / "two.npy", two))[0].sum() == 12
    (boundaries,) = read_ground_truths(write(tmp_path / "b.png", line(4) * 255))
    assert np.array_equal(boundaries, line(4) == 1)
    assert not np.array_equal(read_ground_truths(tmp_path / "b.png", regions=True)[0], boundaries)
    maps = read_ground_truths(annotators(tmp_path / "m.mat", [line(4), line(9)]))
    assert [np.flatnonzero(mask.any(1)).tolist() for mask in maps] == [[4], [9]]
    segmented = annotators(tmp_path / "s.mat", [regions.astype(np.uint16)], "Segmentation")
    assert np.array_equal(read_ground_truths(segmented)[0], expected)


def faults(folders):
    """Yield functions that damage a file or remove it, and the expected message."""
    predictions, truths = folders
    yield lambda: (truths / "a.png").unlink(), "truths: no file for 1 of 3 images, such as 'a'"
    yield lambda: (predictions / "b.npy").unlink(), "predictions: no file for 1 of 3"
    yield lambda: write(truths / "a.png", line(3, (9, 30))), r"a.png: is \(40, 56\).*\(9, 30\)"
    yield lambda: (truths / "a.png").write_bytes(b"no picture"), "a.png: truncated"
    yield lambda: (predictions / "b.npy").write_bytes(b"no array"), "b.npy: cannot be read"
    yield lambda: (truths / "c.mat").write_bytes(b"no matlab"), "c.mat: cannot be read"
    yield lambda: savemat(truths / "c.mat", {"x": 1}), "c.mat: no annotators"
    yield (
        lambda: annotators(truths / "c.mat", [line(1)], "Other"),
        "c.mat: an annotator has",
    )
    yield lambda: write(predictions / "b.npy", line(3) * 1.5), "b.npy: probabilities must be"
    yield lambda: write(predictions / "b.npy", line(3) * np.nan), "b.npy: probabilities must be"
    yield (
        lambda: write(predictions / "a.png", np.zeros((*SIZE, 3), np.uint8)),
        "one number per pixel",
    )


@pytest.mark.parametrize("index", range(11))
def test_invalid_files_raise_an_error(folders, index):
    damage, message = list(faults(folders))[index]
    damage()
    with pytest.raises(DataError, match=message) as caught:
        run(folders)
    assert "\n" not in str(caught.value)
    assert not (folders[0].parent / "out.json").exists()


def test_missing_folder_raises_an_error(tmp_path):
    with pytest.raises(DataError, match="nowhere: no folder"):
        pair_files(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize(
    ("option", "value"), [("--max-dist", "0"), ("--max-dist", "nan"), ("--thresholds", "0")]
)
def test_options_out_of_range_raise_an_error(folders, option, value):
    with pytest.raises(ConfigError, match=option):
        run(folders, option, value)
