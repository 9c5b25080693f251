"""Errors that speak to the person at the keyboard: one line, what, where, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from textwrap import shorten


class UserError(Exception):
    """Something the user can mend. Tools print its message as one line and exit with 2."""


class ConfigError(UserError):
    """A wrong key, type, name or combination in a configuration; may hold several lines."""


class DataError(UserError):
    """A dataset, file or label that is missing, corrupt or out of range; names the file."""


class ModelError(UserError):
    """A backbone, head or architecture that cannot be built or combined as asked."""


class CheckpointError(UserError):
    """A run folder or checkpoint that is missing, corrupt or of another experiment."""


class ResultsError(UserError):
    """Result files that are missing or cannot be compared with each other."""


class OutputError(UserError):
    """A file or folder that cannot be written: a full disk, no permission; names it."""


class WorkerError(UserError):
    """A process that was to help ended before its work was done."""


def suggest(name: str, choices: Iterable[str], otherwise: str = "") -> str:
    """Return a hint for an error message about an unknown name.

    Args:
        name: that is unknown.
        choices: all valid names.
        otherwise: hint where no valid name is similar; if empty, the valid names.
    """
    choices = sorted(choices)
    if not choices:
        return "there are none"
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return (
        f"did you mean {near[0]!r}?" if near else otherwise or f"choose from {', '.join(choices)}"
    )


def shorten_error(error: Exception) -> str:
    """Kind and words of an error, cut to one line."""
    return shorten(f"{type(error).__name__}: {error}", 120)
