"""Messages about folders that are missing or hold files of other types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from densemtl import registry
from densemtl.errors import ConfigError, DataError
from tests.helpers.experiments import make_tiny_experiment

FOLDER_OPTIONS = {"images": "images", "labels": {"depth": {"files": "depth"}}}


def make(name: str, root: str) -> Any:
    options = {"root": root, **(FOLDER_OPTIONS if name == "folder" else {})}
    return registry.create("data.datasets", name, "train", (), options=options)


@pytest.mark.parametrize("name", ["nyud", "pascal_context", "folder"])
def test_missing_relative_root_names_the_working_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"^data.root: gone: no such folder in {tmp_path}$"):
        make(name, "gone")
    with pytest.raises(DataError, match=r"^data\.root: /gone: no such folder$"):
        make(name, "/gone")
    Path("file").touch()
    with pytest.raises(DataError, match=r"^data\.root: file: not a folder"):
        make(name, "file")


@pytest.mark.parametrize(("name", "images"), [("folder", "images"), ("nyud", "train/image")])
def test_images_of_other_types_are_named(name: str, images: str, tmp_path: Path) -> None:
    (tmp_path / images).mkdir(parents=True)
    for file in ("a.heic", "b.heic", "c.dng"):
        (tmp_path / images / file).touch()
    with pytest.raises(DataError, match=r"no images here \(.*contains 2 \.heic, 1 \.dng\)"):
        make(name, str(tmp_path))


def test_unknown_key_of_a_label_has_a_suggestion() -> None:
    label = "{files: depth, scal: 1}"
    data = f"data={{name: folder, root: /, images: images, labels: {{depth: {label}}}}}"
    with pytest.raises(ConfigError, match=r"data\.labels\.depth\.scal: .* did you mean 'scale'\?"):
        make_tiny_experiment(data, "tasks=[depth]")
