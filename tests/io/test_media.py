"""Lists of images and videos, and the names of their outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from densemtl.errors import DataError
from densemtl.io.media import assign_output_names, find_images, find_media


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "film.mp4", "notes.txt", "._b.jpg", "deep/er/c.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path


def test_folders_give_sorted_images_and_videos(folder: Path) -> None:
    images, videos = find_media([folder])
    assert [file.name for file in images] == ["a.PNG", "b.jpg"]
    assert videos == [folder / "film.mp4"]
    assert [file.name for file in find_images(folder)] == ["a.PNG", "b.jpg"]


def test_glob_patterns_match_in_subfolders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_media([folder / "**/*.png"])[0] == [folder / "deep/er/c.png"]
    monkeypatch.chdir(folder)
    images, videos = find_media([Path("*.jp*g"), Path("f*"), Path("a.PNG")])
    assert (images, videos) == ([Path("b.jpg"), Path("a.PNG")], [Path("film.mp4")])


def test_patterns_skip_hidden_files_and_folders(folder: Path) -> None:
    for name in (".trash/x.png", "deep/.cache/y.png", "deep/.z.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert find_images(folder / "**/*.png") == [folder / "deep/er/c.png"]
    assert find_images(folder / "*/*/*.png") == [folder / "deep/er/c.png"]
    assert find_images(folder / ".trash/*.png") == [folder / ".trash/x.png"]


def test_patterns_enter_linked_folders_and_end_at_loops(folder: Path) -> None:
    (folder / "[1]").symlink_to(folder / "deep", target_is_directory=True)
    for name in ("loop", "back"):
        (folder / "deep" / name).symlink_to(folder / "deep", target_is_directory=True)
    expected = [folder / "[1]/er/c.png", folder / "deep/er/c.png"]
    assert find_images(folder / "**/*.png") == expected
    assert find_images(folder / "**/er/**/c.*") == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "nothing to show in this folder or pattern"),
        ("*.gif", "nothing to show in this folder or pattern"),
        ("nowhere.jpg", "no such file or folder"),
        ("notes.txt", "unknown file type; use .jpg"),
    ],
)
def test_path_without_media_is_an_error_of_one_line(folder: Path, name: str, message: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        find_media([folder / name])
    assert "\n" not in str(caught.value)
    assert str(folder / name) in str(caught.value)


def test_output_names_of_files_with_equal_stems_are_distinct() -> None:
    files = [Path("x/a.jpg"), Path("y/a.jpg"), Path("a_2.png"), Path("a.png")]
    names = assign_output_names(files, Path("out"), ".png")
    assert sorted(names.values()) == sorted(files)
    assert list(names) == ["a", "a_2", "a_2_2", "a_3"]


def test_outputs_never_replace_inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    photo = Path("deep/er/c.png")
    with pytest.raises(DataError, match="the output would replace it; choose another --output"):
        assign_output_names([photo], folder / "deep" / "x" / ".." / "er", ".png")
    assert assign_output_names([Path("b.jpg")], Path(), ".png") == {"b": Path("b.jpg")}


def test_folder_without_images_names_what_it_contains(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is empty"):
        find_images(tmp_path)
    for name in ("a.heic", "b.heic", "c.txt", "d", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    with pytest.raises(DataError) as error:
        find_images(tmp_path)
    assert "(it contains 2 .heic, 1 .txt, 1 without suffix, 1 folder)" in str(error.value)


def test_missing_relative_path_names_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"^gone.jpg: no such file or folder in {tmp_path};"):
        find_images(Path("gone.jpg"))
