"""Paths of custom images and labels: patterns with placeholders, and the image ids that they give.

`{id}` is the name of an image, `{scene}` and each `*` match a part of the path that is the same for
the image and its labels, `**` matches any folders, and `{split}` is replaced by the folder of a
split. Without `{id}`, the pattern is a folder, and the files in it are named by the ids.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from densemtl.errors import ConfigError, DataError, shorten_error
from densemtl.io.arrays import SUPPORTED_SUFFIXES

SPLIT_PLACEHOLDER = "{split}"

_TOKEN = re.compile(r"\{id\}|\{scene\}|\*\*/|\*")

_ANY_SUFFIX = f"(?:{'|'.join(map(re.escape, SUPPORTED_SUFFIXES))})"


@dataclass(frozen=True)
class FilePattern:
    """Pattern of the paths of files.

    Attributes:
        folder: existing part of the path, before the first placeholder.
        glob_pattern: pattern that finds the files, relative to `folder`.
        regex: expression that matches paths relative to `folder`, with a group per placeholder.
    """

    folder: Path
    glob_pattern: str
    regex: re.Pattern[str]

    def find_files(self) -> list[Path]:
        """List the files that match, sorted; hidden files are skipped.

        Linked folders are searched as well. With `**`, every folder is searched once, also if
        several links lead to it.

        Raises:
            DataError: if a folder cannot be searched.
        """
        try:
            if not self.folder.is_dir():
                return []
            if "**" in self.glob_pattern:
                paths = _walk_files(self.folder)
            else:
                paths = _match_files(self.folder, PurePosixPath(self.glob_pattern).parts)
            return sorted(path for path in paths if self.parse_id(path))
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or shorten_error(error)
            folder = getattr(error, "filename", None) or self.folder
            raise DataError(f"{folder}: cannot be searched: {reason}") from error

    def parse_id(self, path: Path) -> str | None:
        """Return the image id of a path, or None if it does not match.

        The id consists of the scene, the matches of wildcards, and the name, joined by slashes.
        """
        if not path.is_relative_to(self.folder):
            return None
        relative = path.relative_to(self.folder)
        match = self.regex.fullmatch(relative.as_posix())
        if match is None or any(part.startswith(".") for part in relative.parts):
            return None
        groups = match.groupdict()
        wildcards = [groups[name] for name in groups if name not in ("id", "scene")]
        parts = [groups.get("scene", ""), *wildcards, groups["id"]]
        return "/".join(part.strip("/") for part in parts if part)


def parse_pattern(root: Path, text: str, split_folder: str, key: str) -> FilePattern:
    """Parse a folder or pattern of the configuration.

    Args:
        root: folder that the pattern is relative to.
        text: folder or pattern.
        split_folder: text that replaces {split}.
        key: key of the configuration, for error messages.

    Returns:
        The pattern.

    Raises:
        ConfigError: if there is an unknown placeholder, or no folder to search in.
    """
    text = text.replace(SPLIT_PLACEHOLDER, split_folder).rstrip("/")
    if unknown := re.search(r"\{[^{}]*\}", text.replace("{id}", "").replace("{scene}", "")):
        raise ConfigError(
            f"{key}: unknown placeholder {unknown[0]}; use {{id}}, {{scene}}, {{split}}"
        )
    is_folder = "{id}" not in text
    text = f"{text}/{{id}}" if is_folder else text.removesuffix(".*")
    if "**" in re.sub(r"(?<![^/])\*\*/", "", text):
        raise ConfigError(f"{key}: ** must be a whole folder of the path, as in **/{{id}}.png")
    start = _TOKEN.search(text)
    folder, _, rest = text[: start.start() if start else 0].rpartition("/")
    folder = "/" if text.startswith("/") and not folder else folder
    rest += text[start.start() if start else 0 :]
    is_nested = not is_folder and rest.startswith("{id}") and len(_TOKEN.findall(rest)) == 1
    glob_pattern, regex = _translate(rest, is_nested)
    if not rest.lower().endswith(SUPPORTED_SUFFIXES):
        glob_pattern, regex = f"{glob_pattern}.*", f"{regex}(?i:{_ANY_SUFFIX})"
    if not os.path.normpath(root / folder).strip("/"):
        raise ConfigError(f"{key}: {text!r} searches the whole file system; name a folder")
    return FilePattern(root / folder, glob_pattern, re.compile(regex))


def _translate(pattern: str, is_nested: bool) -> tuple[str, str]:
    """Return a glob pattern and a regular expression; a nested id may contain subfolders."""
    globbed, regex, position, seen = "", "", 0, set[str]()
    for number, token in enumerate(_TOKEN.finditer(pattern)):
        literal = pattern[position : token.start()]
        globbed, regex = globbed + glob.escape(literal), regex + re.escape(literal)
        position = token.end()
        text = token[0]
        if text in seen:
            globbed, regex = f"{globbed}*", f"{regex}(?P={text[1:-1]})"
        elif text.startswith("{"):
            seen.add(text)
            globbed += "**/*" if is_nested else "*"
            regex += f"(?P<{text[1:-1]}>{'.+' if is_nested else '[^/]+'})"
        else:
            globbed += text
            regex += f"(?P<part{number}>{'[^/]*' if text == '*' else '(?:.*/)?'})"
    return globbed + glob.escape(pattern[position:]), regex + re.escape(pattern[position:])


def _match_files(folder: Path, parts: Sequence[str]) -> list[Path]:
    """List the files that match a pattern with one part per level.

    `glob` finds the same files, but silently skips folders that cannot be read.
    """
    first, *others = parts
    if glob.has_magic(first):
        visible = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208
        names = fnmatch.filter(visible, first)
    else:
        names = [first]
    paths = [folder / name for name in names]
    if not others:
        return paths if names != [first] else [path for path in paths if path.exists()]
    return [file for path in paths if path.is_dir() for file in _match_files(path, others)]


def _walk_files(folder: Path) -> list[Path]:
    """List the files in a folder and all its subfolders, without hidden folders.

    Links may lead back to a folder that contains them, so that each folder is listed once.
    """

    def identify(path: str | Path) -> tuple[int, int]:
        status = os.stat(path)  # noqa: PTH116  # of the folder that a link leads to
        return status.st_dev, status.st_ino

    def fail(error: OSError) -> None:
        raise error

    seen = {identify(path) for path in (folder, *folder.resolve().parents)}
    files: list[Path] = []
    for parent, subfolders, names in os.walk(folder, onerror=fail, followlinks=True):
        files += [Path(parent, name) for name in names]
        unseen: list[str] = []
        for name in sorted(subfolders):
            identity = identify(os.path.join(parent, name))  # noqa: PTH118
            if identity not in seen and not name.startswith("."):
                seen.add(identity)
                unseen.append(name)
        subfolders[:] = unseen  # os.walk continues with these
    return files


def remove_label_files(
    images: FilePattern, files: Sequence[Path], labels: Sequence[FilePattern]
) -> list[Path]:
    """Remove files that match the pattern of the images, but are labels of other images.

    Args:
        images: pattern of the images, such as {id}.png.
        files: files that match it.
        labels: patterns of the labels, such as {id}_mask.png.

    Returns:
        The files that are images.
    """
    files_by_id: dict[str | None, set[Path]] = {}
    for file in files:
        files_by_id.setdefault(images.parse_id(file), set()).add(file)

    def is_label(file: Path) -> bool:
        ids = [label.parse_id(file) for label in labels]
        return any(name and files_by_id.get(name, set()) - {file} for name in ids)

    return [file for file in files if not is_label(file)]


def expand_scenes(listed: Sequence[str], ids: Collection[str]) -> list[str]:
    """Replace scenes in a split list by their images.

    Args:
        listed: lines of the list, each an image id, or the first part of ids before a slash.
        ids: ids of all images.

    Returns:
        Image ids; lines that are neither remain.

    Example:
        >>> expand_scenes(["hall", "b/1"], ["b/1", "b/2", "hall/1", "hall/2"])
        ['hall/1', 'hall/2', 'b/1']
    """
    scenes: dict[str, list[str]] = {}
    for name in sorted(ids):
        scene = name
        while "/" in scene:
            scene = scene.rpartition("/")[0]
            scenes.setdefault(scene, []).append(name)
    known = set(ids)
    return [
        name
        for line in listed
        for name in ([line] if line in known else scenes.get(line.rstrip("/"), [line]))
    ]


def index_by_id(pattern: FilePattern, files: Iterable[Path]) -> dict[str, Path]:
    """Return {image id: file}.

    Args:
        pattern: pattern of the files.
        files: files that match the pattern.

    Returns:
        The files by their ids, sorted.

    Raises:
        DataError: if two files have the same id.
    """
    index: dict[str, Path] = {}
    for file in files:
        name = pattern.parse_id(file) or ""
        if name in index:
            raise DataError(
                f"{index[name]} and {file}: both have the image id {name!r}; remove one, or state"
                " the file type in the configuration, as in images/{id}.png"
            )
        index[name] = file
    return dict(sorted(index.items()))
