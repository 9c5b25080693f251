"""What all command-line tools share: errors as one clear line, exit codes, common arguments."""

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
"""What an operating system refuses that is no bug of ours."""

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""

OOM_MESSAGES = ("out of memory", "allocate memory", "bad_alloc", "Storage size calculation")
"""What torch says where it has no memory; most of it is a plain RuntimeError."""

OOM_HINT = "take fewer images a batch, a smaller input, or a narrower network"


def run_main(main: Callable[[], None]) -> NoReturn:
    """Run a tool's `main`: 0 when it returns, 2 and one `error:` line a fault for the user's own.

    So are full disks, missing permission, too little memory and the like, wherever they strike.

    Anything else is a bug of ours and keeps its traceback.
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
    """Positional `key=value` arguments that change single values of the configuration."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="change a value of the configuration, such as data.root=/data/NYUDv2 optim.lr=2e-4",
    )


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """`--device`."""
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
