"""Synthetic dataset: reproducible samples, exact labels of six tasks, two layouts on disk."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from scipy.io import loadmat

from densemtl import registry
from densemtl.data.datasets.nyud import NYUDDataset
from densemtl.data.datasets.pascal_context import PascalContextDataset
from densemtl.data.datasets.synthetic import SyntheticDataset
from densemtl.data.datasets.synthetic_scenes.targets import find_object_edges
from densemtl.errors import ConfigError, DataError
from densemtl.tasks.base import Task
from densemtl.types import Sample

ALL = tuple(SyntheticDataset.task_defaults())
SMALL = (48, 60)
SCRIPT = Path(__file__).parents[3] / "datasets" / "make_synthetic.py"


def equal(a: Sample, b: Sample) -> bool:
    return (
        np.array_equal(a.image, b.image)
        and a.targets.keys() == b.targets.keys()
        and all(np.array_equal(a.targets[task], b.targets[task]) for task in a.targets)
    )


def test_samples_are_reproducible() -> None:
    for index in (0, 3):
        first, second = (SyntheticDataset("train", ALL, size=SMALL)[index] for _ in range(2))
        assert equal(first, second)


def test_rooms_depend_on_index_split_and_seed() -> None:
    samples = [
        SyntheticDataset("train", ALL, size=SMALL)[0],
        SyntheticDataset("train", ALL, size=SMALL)[1],
        SyntheticDataset("val", ALL, size=SMALL)[0],
        SyntheticDataset("train", ALL, size=SMALL, seed=1)[0],
    ]
    depths = [sample.targets["depth"] for sample in samples]
    for k, depth in enumerate(depths):
        assert not any(np.allclose(depth, other, atol=0.05) for other in depths[k + 1 :])


def test_samples_do_not_depend_on_the_number_of_images() -> None:
    few = SyntheticDataset("val", ALL, size=SMALL, train_images=2, val_images=3)
    many = SyntheticDataset("val", ALL, size=SMALL, train_images=9, val_images=30)
    assert equal(few[2], many[2])


def test_image_and_labels_do_not_depend_on_the_tasks() -> None:
    all_tasks, one_task = (
        SyntheticDataset("train", ALL, size=SMALL)[1],
        SyntheticDataset("train", ["depth"], size=SMALL)[1],
    )
    assert list(one_task.targets) == ["depth"]
    np.testing.assert_array_equal(one_task.image, all_tasks.image)
    np.testing.assert_array_equal(one_task.targets["depth"], all_tasks.targets["depth"])


def test_labels_have_the_layout_that_tasks_expect(make_task: Callable[..., Task]) -> None:
    dataset = SyntheticDataset("train", ALL, size=(40, 72))
    for index in range(4):
        sample = dataset[index]
        assert sample.image.shape == (40, 72, 3)
        assert sample.image.dtype == np.uint8
        for task, target in sample.targets.items():
            empty = make_task(task).make_empty_label(sample.size)
            assert (target.shape, target.dtype) == (empty.shape, empty.dtype), task


def test_parts_are_absent_if_and_only_if_no_person_is_visible() -> None:
    dataset = SyntheticDataset("train", ALL, size=SMALL)
    visible = [dataset.render_scene(index).parts.any() for index in range(20)]
    assert [("human_parts" in dataset[index].targets) for index in range(20)] == visible
    assert 0 < sum(visible) < 20


def test_class_names_cover_the_labels() -> None:
    defaults = SyntheticDataset.task_defaults()
    sample = SyntheticDataset("train", ALL, size=SMALL)[0]
    assert sample.targets["semseg"].max() < len(defaults["semseg"]["class_names"])
    assert defaults["human_parts"]["class_names"][0] == "background"


def test_length_ids_and_bounds() -> None:
    dataset = SyntheticDataset("val", ALL, size=SMALL, val_images=3)
    assert len(dataset) == len(set(dataset.ids)) == 3
    assert dataset[2].id == dataset.ids[2]
    assert equal(dataset[-1], dataset[2])
    with pytest.raises(IndexError):
        dataset[3]


def test_fingerprint_depends_on_images_but_not_on_tasks() -> None:
    base = SyntheticDataset("val", ALL).fingerprint()
    assert SyntheticDataset("val", ["depth"]).fingerprint() == base
    others = [
        SyntheticDataset("val", ALL, seed=1),
        SyntheticDataset("val", ALL, size=SMALL),
        SyntheticDataset("val", ALL, val_images=7),
        SyntheticDataset("train", ALL),
    ]
    assert base not in {other.fingerprint() for other in others}


@pytest.mark.parametrize(
    "options", [{"size": (8, 60)}, {"train_images": 0}, {"val_images": 0}, {"seed": -1}]
)
def test_invalid_options_are_an_error(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"synthetic.{next(iter(options))}"):
        registry.create("data.datasets", "synthetic", "train", [], options=options)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return importlib.import_module("densemtl.commands.make_synthetic")


OPTIONS = ["--train", "5", "--val", "3", "--size", "48", "60", "--seed", "4"]


def rooms(split: str) -> SyntheticDataset:
    return SyntheticDataset(split, ALL, size=SMALL, train_images=5, val_images=3, seed=4)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def nyud(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nyud") / "set"
    script.main(["nyud", str(root), *OPTIONS])
    return root


@pytest.fixture(scope="module")
def pascal(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pascal") / "set"
    script.main(["pascal_context", str(root), *OPTIONS])
    return root


@pytest.mark.parametrize("split", ["train", "val"])
def test_nyud_dataset_reads_the_rendered_labels(nyud: Path, split: str) -> None:
    loaded = NYUDDataset(split, ("semseg", "depth", "normals", "edge"), root=nyud)  # type: ignore[arg-type]
    nyud_classes = NYUDDataset.task_defaults()["semseg"]["class_names"]
    classes = SyntheticDataset.task_defaults()["semseg"]["class_names"]
    source = rooms(split)
    assert len(loaded) == len(source)
    for index in range(len(source)):
        stored, rendered = loaded[index], source[index]
        np.testing.assert_array_equal(stored.targets["depth"], rendered.targets["depth"])
        np.testing.assert_array_equal(stored.targets["edge"], rendered.targets["edge"])
        np.testing.assert_allclose(
            stored.targets["normals"], rendered.targets["normals"], atol=1e-5
        )
        assert np.abs(stored.image.astype(int) - rendered.image).mean() < 8
        for name in ("wall", "person", "bed"):
            mask = stored.targets["semseg"] == nyud_classes.index(name)
            np.testing.assert_array_equal(mask, rendered.targets["semseg"] == classes.index(name))


def test_pascal_parts_have_the_nested_structure_of_the_real_files(pascal: Path) -> None:
    people = 0
    for index in range(5):
        scene = rooms("train").render_scene(index)
        file = pascal / "human_parts" / f"2008_{index + 1:06d}.mat"
        if not file.exists():
            assert not scene.parts.any()
            continue
        anno = loadmat(file)["anno"][0][0]
        assert anno[0][0] == file.stem
        for item in anno[1][0]:
            category, mask, parts = item[1][0][0], item[2], item[3]
            assert mask.shape == SMALL
            if category == 15:
                people += 1
                covered = sum(part[1].astype(int) for part in parts[0])
                np.testing.assert_array_equal(covered, mask)
                assert {str(part[0][0]) for part in parts[0]} <= {
                    *("head", "torso", "luarm", "llarm", "luleg", "llleg")
                }
    assert people > 0


@pytest.mark.parametrize("split", ["train", "val"])
def test_pascal_dataset_reads_the_rendered_labels(pascal: Path, split: str) -> None:
    tasks = ("semseg", "human_parts", "edge", "saliency", "normals")
    loaded, source = PascalContextDataset(split, tasks, root=pascal), rooms(split)  # type: ignore[arg-type]
    pascal_classes, classes = (
        PascalContextDataset.task_defaults()["semseg"]["class_names"],
        SyntheticDataset.task_defaults()["semseg"]["class_names"],
    )
    assert len(loaded) == len(source)
    for index in range(len(source)):
        stored, rendered = loaded[index].targets, source[index].targets
        for pascal_name, name in (("person", "person"), ("chair", "chair"), ("sofa", "sofa")):
            mask = rendered["semseg"] == classes.index(name)
            np.testing.assert_array_equal(
                stored["semseg"] == pascal_classes.index(pascal_name), mask
            )
        parts = stored.get("human_parts", np.full(SMALL, 255))
        np.testing.assert_array_equal(parts, rendered.get("human_parts", np.full(SMALL, 255)))
        salient = stored.get("saliency", np.full(SMALL, 255))
        np.testing.assert_array_equal(salient, rendered["saliency"])
        valid = np.isfinite(stored["normals"]).all(-1)
        assert valid.mean() > 0.5
        assert np.abs(stored["normals"] - rendered["normals"])[valid].max() < 0.02
        near = cv2.dilate(rendered["edge"], np.ones((5, 5), np.uint8)) == 1
        assert 0.01 < (stored["edge"] == 1).mean() < 0.4
        assert near[stored["edge"] == 1].all()


def test_pascal_split_lists_match_the_files(pascal: Path) -> None:
    for split, count in (("train", 5), ("val", 3)):
        ids = (pascal / "ImageSets" / "Context" / f"{split}.txt").read_text().split()
        assert len(ids) == count
        for folder, suffix in (
            ("JPEGImages", "jpg"),
            ("semseg/VOC12", "png"),
            ("normals_distill", "png"),
            ("pascal-context/trainval", "mat"),
        ):
            assert all((pascal / folder / f"{name}.{suffix}").exists() for name in ids)
    first = loadmat(pascal / "pascal-context" / "trainval" / f"{ids[0]}.mat")["LabelMap"]
    assert first.shape == SMALL
    assert 0 < first.min() <= first.max() <= 459


def test_script_resumes_after_an_interruption(
    script: ModuleType, nyud: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, existing = nyud / "images" / "0002.jpg", nyud / "images" / "0001.jpg"
    before, mtime = missing.read_bytes(), existing.stat().st_mtime_ns
    missing.unlink()
    script.main(["nyud", str(nyud), *OPTIONS])
    assert missing.read_bytes() == before
    assert existing.stat().st_mtime_ns == mtime


def test_script_rejects_other_options_and_folders_with_other_files(
    script: ModuleType, nyud: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="another seed"):
        script.main(["nyud", str(nyud), *OPTIONS[:-1], "5"])
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataError, match="other files"):
        script.main(["nyud", str(tmp_path), *OPTIONS])
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_invalid_size_creates_no_folder(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="size"):
        script.main(["nyud", str(tmp_path / "set"), "--size", "8", "8"])
    assert not (tmp_path / "set").exists()


def test_workers_write_the_same_files(script: ModuleType, nyud: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    script.main(["nyud", str(root), *OPTIONS, "--workers", "1"])
    files = sorted(file.relative_to(nyud) for file in nyud.rglob("*.*"))
    assert files == sorted(file.relative_to(root) for file in root.rglob("*.*"))
    assert all((nyud / file).read_bytes() == (root / file).read_bytes() for file in files)
    assert json.loads((root / "synthetic.json").read_text())["seed"] == 4


def test_help_imports_no_heavy_libraries() -> None:
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit: print(sorted({'torch', 'cv2', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--seed" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_edges_are_object_boundaries() -> None:
    dataset = SyntheticDataset("train", ["edge"], size=SMALL)
    np.testing.assert_array_equal(
        dataset[0].targets["edge"], find_object_edges(dataset.render_scene(0))
    )
