"""Paths that users give on the command line, in configurations and in Python."""

from __future__ import annotations

from pathlib import Path

from densemtl.errors import ConfigError


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
