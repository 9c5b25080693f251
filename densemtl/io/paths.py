"""Paths that users give on the command line, in configurations and in Python."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from densemtl.errors import ConfigError, DataError, shorten_error

MAX_SUFFIXES = 4
"""Maximum number of file types that a message lists."""


def parse_path(path: str | Path) -> Path:
    """Convert a path that a user gave; `~` and `~user` at its start are home folders.

    Shells do not expand `~` in `--output=~/x` or `data.root=~/x`.

    Args:
        path: path of a file or folder.

    Returns:
        The expanded path.

    Raises:
        ConfigError: if the user does not exist, or has no home folder.

    Example:
        >>> parse_path("~/x") == Path.home() / "x"
        True
        >>> parse_path("a/~/b").as_posix()
        'a/~/b'
    """
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError) as error:  # ValueError: a null byte in the name of the user
        user = Path(path).parts[0].removeprefix("~")
        reason = f"there is no user {user!r}" if user else "you have no home folder"
        raise ConfigError(f"{path}: {reason} on this machine; give the whole path") from error


def describe_missing(path: Path, reason: str) -> str:
    """Describe a path that does not exist, for error messages.

    Args:
        path: path of a file or folder.
        reason: what is missing, such as "no such file".

    Returns:
        The path and the reason, with the folder that a relative path starts from.

    Example:
        >>> describe_missing(Path("/nyud"), "no such folder")
        '/nyud: no such folder'
    """
    if path.is_absolute():
        return f"{path}: {reason}"
    try:
        return f"{path}: {reason} in {Path.cwd()}"
    except OSError:  # the working directory was deleted
        return f"{path}: {reason}, as the working directory does not exist"


def require_folder(path: Path, key: str) -> None:
    """Check that a folder of the configuration exists.

    Args:
        path: path of the folder.
        key: key of the configuration, for the error message.

    Raises:
        DataError: if there is no such folder; names the folder that a relative path starts from.
    """
    if not path.is_dir():
        reason = "not a folder" if path.exists() else "no such folder"
        raise DataError(f"{key}: {describe_missing(path, reason)}")


def describe_content(folder: Path) -> str:
    """Describe what a folder contains instead of the expected files, for error messages.

    Args:
        folder: path of a folder.

    Returns:
        Numbers of files by type and of folders, such as "contains 3 .heic, 1 folder".

    Example:
        >>> describe_content(Path("/no/such/folder"))
        'does not exist'
    """
    try:
        paths = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read: {shorten_error(error)}"
    paths = [path for path in paths if not path.name.startswith(".")]
    suffixes = Counter(path.suffix or "without suffix" for path in paths if not path.is_dir())
    num_folders = sum(path.is_dir() for path in paths)
    parts = [f"{count} {suffix}" for suffix, count in suffixes.most_common(MAX_SUFFIXES)]
    if num_folders:
        parts.append(f"{num_folders} folder{'s' if num_folders > 1 else ''}")
    return f"contains {', '.join(parts)}" if parts else "is empty"
