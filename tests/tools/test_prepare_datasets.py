"""Dataset preparation scripts end to end on tiny files, with interruption and resumption."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from densemtl.data.datasets import nyud_raw
from densemtl.data.datasets.nyud import NYUDDataset
from densemtl.data.datasets.pascal_context import PascalContextDataset
from densemtl.errors import DataError
from densemtl.io import arrays
from densemtl.io.writers import write_normals
from tests.helpers import fake_datasets

TOOLS = Path(__file__).parents[2] / "datasets"


def load(name: str) -> ModuleType:
    """Load a command as a module."""
    return import_module(f"densemtl.commands.{name}")


def snapshot(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()
    }


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return fake_datasets.write_nyud_raw(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="module")
def prepared(official: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build NYUD-v2 without interruption."""
    output = tmp_path_factory.mktemp("prepared") / "NYUD_MT"
    load("prepare_nyud").main(arguments(official, output))
    return output


def arguments(official: tuple[Path, Path], output: Path) -> list[str]:
    return ["official", str(official[0]), "--splits", str(official[1]), "--output", str(output)]


def test_official_files_are_converted_to_the_survey_layout(prepared: Path) -> None:
    for split, ids in (("train", ("0001", "0002")), ("val", ("0003", "0004"))):
        dataset = NYUDDataset(split, ["semseg", "depth", "normals", "edge"], root=prepared)
        assert dataset.ids == ids
        sample, scene = dataset[1], fake_datasets.FakeScene(int(ids[1]) - 1, (480, 640))
        crop = (slice(45, 470), slice(41, 601))
        assert sample.size == (425, 560)
        assert np.abs(sample.image.mean((0, 1)) - scene.image[crop].mean((0, 1))).max() < 2
        np.testing.assert_array_equal(sample.targets["depth"], scene.depth[crop])
        expected = nyud_raw.LABEL_TO_CLASS[scene.make_ids(20)[crop]]
        np.testing.assert_array_equal(sample.targets["semseg"] + np.uint8(1), expected)
        assert np.isfinite(sample.targets["normals"]).all(-1).mean() > 0.99
        assert 0 < sample.targets["edge"].mean() < 0.1


def test_classes_of_labels_with_known_names() -> None:
    """Some labels have the name of a class: book 23, cabinet 3, ceiling 22, chair 5."""
    assert nyud_raw.LABEL_TO_CLASS.shape == (895,)
    expected = {0: 0, 1: 40, 3: 3, 4: 22, 5: 5, 11: 2, 21: 1, 83: 6, 157: 4, 331: 31, 894: 40}
    assert {label: int(nyud_raw.LABEL_TO_CLASS[label]) for label in expected} == expected


def test_official_conversion_resumes_after_an_interruption(
    official: tuple[Path, Path], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, output = load("prepare_nyud"), tmp_path / "NYUD_MT"
    write, written = tool._write_frame, []

    def interrupt_third_image(root: Path, name: str, frame: object) -> None:
        written.append(name)
        if len(written) == 3:
            monkeypatch.setattr("densemtl.io.writers.write_image", interrupt)
        write(root, name, frame)

    def interrupt(file: Path, image: np.ndarray) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "_write_frame", interrupt_third_image)
    with pytest.raises(KeyboardInterrupt):
        tool.main(arguments(official, output))
    assert not (output / "gt_sets").exists()
    monkeypatch.undo()
    mtime = (output / "images" / "0001.jpg").stat().st_mtime_ns
    load("prepare_nyud").main(arguments(official, output))
    assert (output / "images" / "0001.jpg").stat().st_mtime_ns == mtime
    assert snapshot(output) == snapshot(prepared)


def test_folder_with_other_options_or_files_is_an_error(
    official: tuple[Path, Path], prepared: Path, tmp_path: Path
) -> None:
    tool = load("prepare_nyud")
    with pytest.raises(DataError, match="made with the crop"):
        tool.main([*arguments(official, prepared), "--full"])
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(DataError, match="contains other files"):
        tool.main(arguments(official, tmp_path))


def test_wrong_official_files_are_an_error(official: tuple[Path, Path], tmp_path: Path) -> None:
    tool, broken = load("prepare_nyud"), tmp_path / "broken.mat"
    broken.write_bytes(official[0].read_bytes()[:5000])
    with pytest.raises(DataError, match=r"broken\.mat: .*again"):
        tool.main(arguments((broken, official[1]), tmp_path / "out"))
    with pytest.raises(DataError, match="no 'images'"):
        nyud_raw.NYUDRawFile(_other_hdf5(tmp_path))
    fake_datasets.write_mat(tmp_path / "other.mat", a=1)
    with pytest.raises(DataError, match="no 'trainNdxs'"):
        tool.main(arguments((official[0], tmp_path / "other.mat"), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def _other_hdf5(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "other.h5", "w") as file:
        file["a"] = 1
    return folder / "other.h5"


def test_missing_normals_are_derived_from_depth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool, root, output = load("prepare_nyud"), tmp_path / "nyud", tmp_path / "normals"
    fake_datasets.write_nyud_png_depth(root, size=(106, 140))
    (root / "normals" / "0002.png").unlink()
    before = snapshot(root)
    tool.main(["normals", str(root), "--output", str(output)])
    assert set(arrays.index_by_stem(output)) == {"0002", "0004"}
    assert snapshot(root) == before
    output_text = capsys.readouterr().out
    assert "2 written, 0 already existed" in output_text
    assert "of 2 images: mean" in output_text
    (output / "0004.png").unlink()
    tool.main(["normals", str(root), "--output", str(output), "--compare", "0"])
    assert "1 written, 1 already existed" in capsys.readouterr().out
    tool.main(["normals", str(root), "--output", str(output), "--compare", "0", "--all"])
    assert set(arrays.index_by_stem(output)) == {"0001", "0002", "0003", "0004"}


def test_comparison_uses_the_axes_of_the_given_normals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = load("prepare_nyud")
    fake_datasets.write_image(tmp_path / "depth" / "0001.png", np.full((106, 140), 2000, np.uint16))
    write_normals(tmp_path / "normals" / "0001.png", np.full((106, 140, 3), [0, 0, 1.0]), bits=16)
    facing = ["--normals-axes", "left", "down", "backward"]
    tool.main(["normals", str(tmp_path), "--output", str(tmp_path / "out"), *facing])
    assert "of 1 images: mean 0.0" in capsys.readouterr().out


def test_given_normals_are_never_overwritten(tmp_path: Path) -> None:
    fake_datasets.write_nyud_png_depth(tmp_path)
    with pytest.raises(DataError, match="contains the given normals"):
        load("prepare_nyud").main(["normals", str(tmp_path), "--output", str(tmp_path / "normals")])
    with pytest.raises(DataError, match="no depth maps here"):
        load("prepare_nyud").main(
            ["normals", str(tmp_path / "no"), "--output", str(tmp_path / "x")]
        )


def test_stored_pascal_labels_equal_derived_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool, root, cache = load("prepare_pascal_context"), tmp_path / "pascal", tmp_path / "cache"
    fake_datasets.write_pascal_context(root)
    before = snapshot(root)
    tool.main([str(root), "--output", str(cache)])
    assert "8 maps derived" in capsys.readouterr().out
    assert snapshot(root) == before
    for split in ("train", "val"):
        slow, fast = (
            PascalContextDataset(split, ["edge", "human_parts"], root=root, derived_labels=folder)
            for folder in (None, cache)
        )
        for index in range(2):
            derived, cached = slow[index].targets, fast[index].targets
            assert cached.keys() == derived.keys()
            for task, label in derived.items():
                np.testing.assert_array_equal(cached[task], label)


def test_pascal_preparation_resumes_after_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool, root, cache = load("prepare_pascal_context"), tmp_path / "pascal", tmp_path / "cache"
    ids = fake_datasets.write_pascal_context(root)
    broken = root / "human_parts" / f"{ids[1]}.mat"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    with pytest.raises(DataError, match=broken.name):
        tool.main([str(root), "--output", str(cache)])
    done = snapshot(cache)
    broken.write_bytes(whole)
    tool.main([str(root), "--output", str(cache)])
    after = snapshot(cache)
    assert {name: after[name] for name in done} == done
    assert len(after) == 8
    tool.main([str(root), "--output", str(cache)])
    assert "0 maps derived" in capsys.readouterr().out
    assert snapshot(cache) == after


@pytest.mark.parametrize("tool", ["prepare_nyud", "prepare_pascal_context"])
def test_scripts_import_no_heavy_libraries(tool: str) -> None:
    heavy = "{'torch', 'numpy', 'cv2', 'rich', 'h5py'} & set(sys.modules)"
    code = f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import {tool}; print({heavy})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_errors_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, TOOLS / "prepare_nyud.py", "normals", tmp_path, "--output", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
