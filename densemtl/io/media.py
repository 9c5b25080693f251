"""Lists of images and videos from files, folders and glob patterns.

The module imports no large library, so that the demo reports a wrong path at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from glob import escape, glob, has_magic
from pathlib import Path

from densemtl.errors import DataError
from densemtl.io.paths import describe_content, describe_missing

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""File types of images, in folders of datasets and of the demo."""

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def find_images(path: Path) -> list[Path]:
    """Find the images of a path.

    Args:
        path: image file, folder, or glob pattern, which may contain `**`.

    Returns:
        The image files, sorted by path.

    Raises:
        DataError: if there is no image.
    """
    return _glob_files(path, IMAGE_SUFFIXES)


def find_media(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Find the images and videos of several paths.

    Args:
        paths: files, folders and glob patterns.

    Returns:
        The image files and the video files, in the order of the paths and then by name.

    Raises:
        DataError: if a path has neither images nor videos.
    """
    files = [
        file for path in paths for file in _glob_files(path, (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
    ]
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    return [file for file in files if file not in videos], videos


def is_media(path: Path) -> bool:
    """Return whether a path looks like images or videos.

    Args:
        path: any path.

    Returns:
        True for names of images and videos, which need not exist, for glob patterns, and for
        folders that contain images or videos.
    """
    suffixes = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    try:
        if path.is_dir():
            return any(file.suffix.lower() in suffixes for file in path.iterdir())
        return path.suffix.lower() in suffixes or (has_magic(str(path)) and not path.exists())
    except OSError:  # a name that is too long, or a folder that cannot be read
        return False


def assign_output_names(files: Sequence[Path], folder: Path, suffix: str) -> dict[str, Path]:
    """Assign distinct names to output files FOLDER/NAMESUFFIX.

    Args:
        files: input files.
        folder: folder of the outputs.
        suffix: suffix of the outputs.

    Returns:
        {name: input file}. Names are the stems of the files, with a number if they are equal.

    Raises:
        DataError: if an output would replace one of the input files.
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
    hint = f"use {', '.join(suffixes)}"
    if not path.exists() and not has_magic(str(path)):
        raise DataError(f"{describe_missing(path, 'no such file or folder')}; check the path")
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise DataError(f"{path}: unknown file type; {hint}")
        return [path]
    found = path.iterdir() if path.is_dir() else glob_files(path)
    known_files = (file for file in found if file.suffix.lower() in suffixes and file.is_file())
    files = sorted(file for file in known_files if not file.name.startswith("."))
    if not files:
        content = f" (it {describe_content(path)})" if path.is_dir() else ""
        raise DataError(f"{path}: nothing to show in this folder or pattern{content}; {hint}")
    return files


def glob_files(pattern: Path) -> set[Path]:
    """Find the files and folders that match a glob pattern.

    As in a shell, hidden files and folders only match a part that begins with a dot. Unlike in
    `Path.glob`, `**` also enters linked folders, each once per path, so that loops of links end.

    Args:
        pattern: glob pattern, which may contain `**`.

    Returns:
        The paths, which begin like the pattern.
    """
    parts = pattern.parts
    if "**" not in parts:
        # Path.glob also matches hidden files.
        return {Path(name) for name in glob(str(pattern))}  # noqa: PTH207
    split = parts.index("**")
    rest = parts[split + 1 :] or ("*",)
    folders = [
        folder
        for root in glob_files(Path(*parts[:split]))
        for folder in _list_folders(root, frozenset())
    ]
    return {
        path for folder in folders for path in glob_files(Path(escape(str(folder))).joinpath(*rest))
    }


def _list_folders(folder: Path, parents: frozenset[Path]) -> list[Path]:
    """List a folder and all visible folders below it."""
    real = folder.resolve()
    if real in parents or not folder.is_dir():
        return []
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    below = (_list_folders(path, parents | {real}) for path in inside if path.is_dir())
    return [folder, *(path for paths in below for path in paths)]
