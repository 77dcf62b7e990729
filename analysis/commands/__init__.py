"""The console script ``poolport``: one module for each subcommand.

A subcommand's module has ``NAME``, ``HELP``, ``add_arguments(parser)`` and ``run(arguments)``, which
gives the exit code. Here is the one place where an exception becomes a sentence and an exit code:

| code | meaning |
|---|---|
| 0 | good |
| 1 | a check failed, or something regressed |
| 2 | the call was wrong, or its output cannot be written |
| 3 | an input cannot be read |
| 4 | the platform lacks something |
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from analysis.errors import AnalysisError

__all__ = ["build_parser", "main"]

_COMMANDS = ("demo", "bench", "replay", "report", "compare", "serve", "doctor", "completion")
_INTERRUPTED = 130
_EXIT_CODES = (
    "Exit codes: 0 good; 1 a check failed, or something got worse; 2 the call was wrong, or its output "
    "cannot be written; 3 an input cannot be read; "
    "4 the machine lacks something, or an extra is not installed."
)


class Command(Protocol):
    """A subcommand's module."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit code."""


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415  # costs a tenth of a second, and is rarely asked

    return version("poolport")


class _PrintVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"poolport {_version()}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="poolport",
        description="Memory pools for completion-based I/O: run, measure, report.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        module = cast("Command", importlib.import_module(f"analysis.commands.{name}"))
        command = commands.add_parser(
            module.NAME, help=module.HELP, description=module.HELP, epilog=_EXIT_CODES
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _explain(error: Exception) -> tuple[str, int] | None:
    """The sentence and the exit code for an exception that is no defect of ours."""
    if isinstance(error, AnalysisError):
        return str(error), error.exit_code
    # The engine and the pools have exceptions of their own, which analysis translates here only.
    from iocp_adapter import BackendUnavailable, ListenError, PortError, PortValueError  # noqa: PLC0415
    from pools import PoolError, PoolValueError  # noqa: PLC0415

    if isinstance(error, ListenError):
        return str(error.strerror or error), 2
    for kind, code in (
        (BackendUnavailable, 4),
        (PortValueError | PoolValueError, 2),
        (PortError | PoolError, 1),
    ):
        if isinstance(error, kind):
            return str(error), code
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 2
    return None


def _nobody_reads(error: Exception) -> bool:
    """Whether whoever read our output has gone. On Windows that is an invalid argument, as much else is."""
    if os.name != "nt" or not isinstance(error, OSError) or error.errno != errno.EINVAL:
        return isinstance(error, BrokenPipeError)
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as again:
        return again.errno in (errno.EINVAL, errno.EPIPE)
    return False


def _open_closed_streams() -> None:
    """Let what was closed before the start (``>&-``) lead nowhere, and keep its number from other files."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for the process's life


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    _open_closed_streams()
    try:
        arguments = build_parser().parse_args(argv)
        code = int(arguments.run(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        if _nobody_reads(error):
            # The interpreter would complain when it flushes at its exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        explained = _explain(error)
        if explained is None:
            raise
        print(f"poolport: {explained[0]}", file=sys.stderr)
        return explained[1]
    return code
