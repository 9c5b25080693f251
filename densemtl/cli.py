"""Error reporting, exit codes and common arguments of the command-line tools."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable
from textwrap import shorten
from typing import NoReturn

from densemtl.errors import UserError

USER_OS_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE, errno.EIO),
)
"""Error numbers of the operating system that the user can fix, such as a full disk."""

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as in shells."""

OOM_MESSAGES = ("out of memory", "allocate memory", "bad_alloc", "Storage size calculation")
"""Parts of torch's messages about too little memory, most of which are a plain RuntimeError."""

OOM_HINT = "use a smaller batch, a smaller input or a narrower network"


def run_main(main: Callable[[], None]) -> NoReturn:
    """Run the `main` function of a tool, report errors and exit the process.

    The exit code is 0 if `main` returns, and 130 after Ctrl-C. It is 2 if the user can fix the
    error: a `UserError`, a full disk, a missing permission or too little memory. Each line of such
    an error is printed to stderr after `error: `. Other exceptions are bugs and are raised with
    their traceback.

    Args:
        main: function of a tool without arguments.

    Raises:
        SystemExit: always, unless `main` raises an exception that is a bug.
    """
    try:
        main()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in USER_OS_ERRORS:
            raise
        prefix = f"{error.filename}: " if error.filename else ""
        print(f"error: {prefix}{error.strerror}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not (
            isinstance(error, MemoryError) or any(message in str(error) for message in OOM_MESSAGES)
        ):
            raise
        print(f"error: not enough memory: {OOM_HINT} ({_shorten_error(error)})", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)


def _shorten_error(error: BaseException) -> str:
    return shorten(str(error), 160) or type(error).__name__


def add_overrides_argument(parser: argparse.ArgumentParser) -> None:
    """Add positional `key=value` arguments that override values of the configuration.

    Args:
        parser: parser of a tool, changed in place.
    """
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="override configuration values, e.g. data.root=/data/NYUDv2 optim.lr=2e-4",
    )


def add_old_spelling(
    parser: argparse.ArgumentParser, old: str, dest: str, action: str = "store"
) -> None:
    """Accept the earlier spelling of an option, which `--help` does not list.

    Args:
        parser: parser of a tool, changed in place.
        old: earlier spelling of the option, such as `--licence`.
        dest: attribute that the new spelling sets.
        action: action of the new spelling.
    """
    parser.add_argument(
        old, dest=dest, action=action, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `--trust-custom-code`.

    Args:
        parser: parser of a tool, changed in place.
    """
    parser.add_argument(
        "--trust-custom-code",
        action="store_true",
        help="import the custom classes (package.module:Class) that the saved configuration names",
    )


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `--device`.

    Args:
        parser: parser of a tool, changed in place.
    """
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: cuda if available)")
