"""Run a command of densemtl: `densemtl COMMAND ...`, or `python -m densemtl.commands COMMAND ...`.

A command is a file of this package, found by its name.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable
from functools import partial

import densemtl
from densemtl import cli, commands
from densemtl.errors import suggest


def list_commands() -> list[str]:
    """List the names of all commands."""
    names = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    return sorted(name for name in names if not name.startswith("_"))


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit the process, see `densemtl.cli.run_main`.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    parser = _make_parser()
    args = parser.parse_args(argv)
    if args.command not in list_commands():
        parser.error(f"no command {args.command!r}: {suggest(args.command, list_commands())}")
    sys.argv = [f"densemtl {args.command}", *args.arguments]  # argparse prints the program name
    module = importlib.import_module(f"densemtl.commands.{args.command}")
    run: Callable[[list[str]], None] = module.main
    cli.run_main(partial(run, args.arguments))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="densemtl",
        description=(densemtl.__doc__ or "").removeprefix("densemtl: "),
        epilog=_describe_commands(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=densemtl.__version__)
    parser.add_argument("command", metavar="COMMAND", help="one of the commands below")
    text = "arguments of the command; COMMAND --help describes them"
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help=text)
    return parser


def _describe_commands() -> str:
    lines = ["commands:"]
    for name in list_commands():
        module = importlib.import_module(f"densemtl.commands.{name}")
        lines.append(f"  {name:<23} {(module.__doc__ or '').partition(chr(10))[0]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
