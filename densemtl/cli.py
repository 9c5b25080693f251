"""Error reporting, exit codes and common arguments of the command-line tools."""

from __future__ import annotations

import argparse
import errno
import re
import sys
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from textwrap import shorten
from typing import Any, NoReturn

from densemtl.errors import UserError, suggest
from densemtl.io.paths import parse_path

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


class ArgumentParser(argparse.ArgumentParser):
    """Parser of all commands: expands `~` in paths and suggests what to give for unknown options.

    Arguments of `type=Path` are converted by `densemtl.io.paths.parse_path`.

    Args:
        *args: arguments of `argparse.ArgumentParser`.
        **options: options of `argparse.ArgumentParser`.

    Attributes:
        override_prefix: text before the overrides of a configuration on the command line; None if
            the command accepts no overrides.
    """

    override_prefix: str | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("type", Path, parse_path)
        self._arguments: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments like the base class, and keep them for the message of an error."""
        self._arguments = self._arguments or list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print an error with a hint, and exit with code 2.

        Args:
            message: text of argparse.
        """
        unknown = re.search(r"unrecognized arguments: --([\w.-]+)", message)
        super().error(f"{message}; {self._suggest_option(unknown[1])}" if unknown else message)

    def _suggest_option(self, name: str) -> str:
        from densemtl.config.option_keys import find_keys

        keys = find_keys(name) if self.override_prefix is not None else []
        if not keys:
            options = [text for text in self._option_string_actions if text.startswith("--")]
            return suggest(f"--{name}", options, "--help lists the options")
        values = [self._find_value(f"--{name}")] if len(keys) == 1 else ["VALUE"]
        choices = [f"{self.override_prefix}{key}={value}" for key in keys[:3] for value in values]
        return f"did you mean {' or '.join(choices)}?"

    def _find_value(self, option: str) -> str:
        """Return what follows an option on the command line, or `VALUE`."""
        names = [text.partition("=")[0] for text in self._arguments]
        if option not in names:
            return "VALUE"
        position = names.index(option)
        _, equals, value = self._arguments[position].partition("=")
        following = self._arguments[position + 1 :]
        if equals or not following or following[0].startswith("-"):
            return value or "VALUE"
        values = [following[0], *takewhile(str.isdecimal, following[1:])]
        return values[0] if len(values) == 1 else f"[{','.join(values)}]"


def check_config_path(path: Path) -> None:
    """Report errors of a configuration file at once, before large libraries are imported.

    Args:
        path: path of a configuration file, or name of a shipped configuration.

    Raises:
        ConfigError: if the file or one of its bases is missing, malformed, or no configuration.
    """
    from densemtl.config.shipped_configs import find_config
    from densemtl.config.yaml_loader import load_config

    if not find_config(path).is_fifo():  # a pipe can be read only once
        load_config(path)


def check_run_path(path: Path) -> None:
    """Report a missing run at once, before large libraries are imported.

    Args:
        path: path of a run folder or weights file.

    Raises:
        CheckpointError: if there are no weights at this path.
    """
    from densemtl.config.input_paths import find_weights_file

    find_weights_file(path)


def add_overrides_argument(parser: ArgumentParser) -> None:
    """Add positional `key=value` arguments that override values of the configuration.

    Args:
        parser: parser of a tool, changed in place.
    """
    parser.override_prefix = ""
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
