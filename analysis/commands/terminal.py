"""What the commands print, and where: results on standard output, all else on standard error."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import MissingExtra

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "note",
    "poolport_words",
    "print_json",
    "print_next",
    "print_table",
    "progress",
    "require_extras",
    "require_tables",
    "shell_words",
    "unused",
    "warn",
]

_PACKAGES = {"analysis": ("numpy", "matplotlib", "jinja2"), "cli": ("rich",)}
"""What each extra brings that a command's work needs."""


def _console(*, stderr: bool = False) -> Console:
    try:
        from rich.console import Console  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("rich", extra="cli") from error
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 140
    return Console(stderr=stderr, highlight=False, soft_wrap=False, width=width)


def require_extras(*extras: str) -> None:
    """Raise ``MissingExtra`` now rather than after the work, for all that these extras lack at once."""
    lacking = {extra: [name for name in _PACKAGES[extra] if not _is_installed(name)] for extra in extras}
    if any(lacking.values()):
        packages = [name for names in lacking.values() for name in names]
        raise MissingExtra(*packages, extra=",".join(extra for extra, names in lacking.items() if names))


def require_tables(*, json_output: bool) -> None:
    """Raise ``MissingExtra`` now rather than after the work, where the result needs a table."""
    if not json_output:
        require_extras("cli")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def print_json(document: dict[str, Any]) -> None:
    """Print a result for programs."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    best: Sequence[Sequence[int]] = (),
    texts: int = 1,
) -> None:
    """Print a table whose first ``texts`` columns are words and the others numbers.

    ``best`` gives for each row the columns to make bold.
    """
    console = _console()  # says so where rich is missing
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if number < texts else "right", overflow="fold")
    for number, row in enumerate(rows):
        bold = best[number] if best else ()
        table.add_row(*(Text(cell, style="bold green" if at in bold else "") for at, cell in enumerate(row)))
    console.print(table)


def note(text: str) -> None:
    """Say something that is not the result."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Say something that the user should know, beside the result."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def shell_words(words: Sequence[object]) -> str:
    """Words as this system's shell takes them."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)


def unused(path: Path) -> Path:
    """The path where nothing has that name, otherwise the same with the first number that nothing has."""
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], names) if not os.path.lexists(name))


def poolport_words(*words: object, output: Path) -> str:
    """A command whose output goes to ``output`` by itself; where that is there already, to another one."""
    place = unused(output)
    return shell_words(["poolport", *words, *(["--output", place] if place != output else [])])


def print_next(text: str) -> None:
    """The last line of a command: what is worth running next, which is no part of its result."""
    note(f"next: {text}")


class Progress:
    """Tells what is going on: one line that changes on a terminal, one line each elsewhere."""

    def __init__(self, status: Any):
        self._status = status

    def __call__(self, text: str) -> None:
        """Say what is being done now."""
        if self._status is not None:
            self._status.update(text)
        else:
            note(text)


@contextmanager
def progress(first: str) -> Iterator[Progress]:
    """Show progress while the block runs."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield Progress(None)
        return
    with console.status(first) as status:
        yield Progress(status)
