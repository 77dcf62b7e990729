"""``poolport completion``: the shell's completion script."""

from __future__ import annotations

import argparse

from analysis.commands.terminal import note
from analysis.errors import MissingExtra

NAME = "completion"
HELP = "print a completion script for bash, zsh or tcsh"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from analysis.commands import build_parser  # noqa: PLC0415  # it imports us

    try:
        import shtab  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("shtab", extra="cli") from error
    print(shtab.complete(build_parser(), shell=arguments.shell))
    note(f'next: eval "$(poolport completion {arguments.shell})"')
    return 0
