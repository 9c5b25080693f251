"""Images and videos that people give as files, folders or patterns."""

from __future__ import annotations

from collections.abc import Sequence
from glob import has_magic
from pathlib import Path

from densemtl.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def find_images(path: Path) -> list[Path]:
    """An image, or all images of a folder or a pattern (`**` too) in order of their names.

    Raises:
        DataError: nothing there that could be an image.
    """
    return _glob_files(path, IMAGE_SUFFIXES)


def find_media(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Images and videos of files, folders and patterns.

    Raises:
        DataError: a path with nothing that could be either.
    """
    files = [
        file for path in paths for file in _glob_files(path, (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
    ]
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    return [file for file in files if file not in videos], videos


def assign_output_names(files: Sequence[Path], folder: Path, suffix: str) -> dict[str, Path]:
    """{name: file} so that each gets its own FOLDER/NAMESUFFIX; names are numbered where alike.

    Raises:
        DataError: a picture would replace one of the files that were given.
    """
    named: dict[str, Path] = {}
    for file in files:
        names = (file.stem, *(f"{file.stem}_{count}" for count in range(2, len(named) + 3)))
        named[next(name for name in names if name not in named)] = file
    input_files = {file.resolve() for file in files}
    for name in named:
        target = folder / f"{name}{suffix}"
        if target.resolve() in input_files:
            raise DataError(f"{target}: the output would replace it; choose another --output")
    return named


def _glob_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    hint = f"known are {', '.join(suffixes)}"
    if not path.exists() and not has_magic(str(path)):
        raise DataError(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise DataError(f"{path}: an unknown kind of file; {hint}")
        return [path]
    anchor = Path(path.anchor)
    inside = path.iterdir() if path.is_dir() else anchor.glob(str(path.relative_to(anchor)))
    known_files = (file for file in inside if file.suffix.lower() in suffixes and file.is_file())
    files = sorted(file for file in known_files if not file.name.startswith("."))
    if not files:
        raise DataError(f"{path}: nothing to show in this folder or pattern; {hint}")
    return files
