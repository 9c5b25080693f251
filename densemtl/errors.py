"""Exceptions for errors that the user can fix. Messages say what is wrong, where, and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from textwrap import shorten


class UserError(Exception):
    """Base class of errors that the user can fix. Tools print the message and exit with code 2."""


class ConfigError(UserError):
    """Wrong key, type, name or combination in a configuration; one line per error."""


class DataError(UserError):
    """Dataset, file or label that is missing, corrupt or out of range; names the file."""


class ModelError(UserError):
    """Backbone, head or decoder that cannot be built or combined as configured."""


class CheckpointError(UserError):
    """Run folder or checkpoint that is missing, corrupt or of another experiment."""


class ResultsError(UserError):
    """Results files that are missing or cannot be compared with each other."""


class OutputError(UserError):
    """File or folder that cannot be written (full disk, no permission); names the path."""


class WorkerError(UserError):
    """Worker process that ended before its work was done."""


def suggest(name: str, choices: Iterable[str], otherwise: str = "") -> str:
    """Return a hint for an error message about an unknown name.

    Args:
        name: the unknown name.
        choices: all valid names.
        otherwise: hint if no valid name is similar; by default, the list of valid names.

    Returns:
        The hint, to be appended to the message.

    Example:
        >>> suggest("learning_rte", ["learning_rate", "momentum"])
        "did you mean 'learning_rate'?"
        >>> suggest("x", ["b", "a"])
        'choose from a, b'
    """
    choices = sorted(choices)
    if not choices:
        return "there are no choices"
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return (
        f"did you mean {near[0]!r}?" if near else otherwise or f"choose from {', '.join(choices)}"
    )


def shorten_error(error: Exception) -> str:
    """Return the type and message of an error, shortened to one line of 120 characters."""
    return shorten(f"{type(error).__name__}: {error}", 120)


def join_names(names: Sequence[str], limit: int = 3) -> str:
    """List the first names for a message, and count the others.

    Args:
        names: the names.
        limit: largest number of names that are listed.

    Returns:
        The names, separated by commas.

    Example:
        >>> join_names(["a", "b", "c", "d"], limit=2)
        'a, b and 2 more'
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
