"""Errors that speak to the person at the keyboard: one line, what, where, what to do."""

from __future__ import annotations


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
