"""Where the traces of a replay go: all of them together, or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from analysis.atomic_file import require_writable
from analysis.errors import OutputError, UsageError
from analysis.replaying.strategies import STRATEGIES

__all__ = ["gather", "require_place"]

SUFFIX = ".pptrace"


def is_file(output: Path) -> bool:
    """Whether the name is that of one trace, not of a directory of them."""
    return output.suffix == SUFFIX and not output.is_dir()


def require_place(output: Path, names: Sequence[str], *, force: bool) -> None:
    """Raise `OutputError` or `UsageError` now where writing would surely fail."""
    if is_file(output):
        if len(names) != 1:
            raise UsageError(
                f"{str(output)!r} is one file for {len(names)} strategies: choose one strategy, or name a "
                "directory"
            )
        require_writable(output, force=force)
        return
    if output.exists() and not output.is_dir():
        raise OutputError(f"{str(output)!r} is no directory: name one, or a file that ends in {SUFFIX}.")
    if output.is_dir() and any(output.iterdir()) and not force:
        raise OutputError(
            f"{str(output)!r} holds something already: choose another output, or replace the traces in it "
            "with --force (force=True)."
        )
    place = output if output.is_dir() else output.parent
    if not place.is_dir():
        raise OutputError(f"{str(output)!r} cannot be made: the directory {str(place)!r} does not exist.")
    if not os.access(place, os.W_OK):
        raise OutputError(f"{str(output)!r} cannot be made: no permission in {str(place)!r}.")


def gather(made: dict[str, str], output: Path, *, force: bool) -> dict[str, str]:
    """Move each strategy's finished trace to its place; the places. An older replay's traces go."""
    try:
        if is_file(output):
            places = dict.fromkeys(made, output)
        else:
            output.mkdir(exist_ok=True)
            places = {name: output / f"{name}{SUFFIX}" for name in made}
            for stale in (output / f"{name}{SUFFIX}" for name in STRATEGIES if force and name not in made):
                stale.unlink(missing_ok=True)
        for name, place in places.items():
            os.replace(made[name], place)
    except OSError as error:
        raise OutputError(f"{str(output)!r} cannot be written: {error.strerror or error}.") from error
    return {name: str(place) for name, place in places.items()}
