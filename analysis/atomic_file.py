"""Writes a file whole or not at all.

The content goes to a temporary file beside the target, which then takes the target's name in one
step: a reader never sees half of it, and a failure leaves what was there before.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from analysis.errors import OutputError


def write_whole(path: str | os.PathLike[str], content: str | bytes, *, force: bool = False) -> Path:
    """Write `content` (text as UTF-8) to `path`, which must not exist unless `force` is true.

    Raises OutputError: the file exists, its directory is missing or not writable, the disk is full.
    """
    target = Path(path)
    require_writable(target, force=force)
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:64]}.", suffix=".tmp", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        if force:
            os.replace(temporary, target)
        else:
            _rename_new(temporary, target)
    except OSError as error:
        raise OutputError(f"{str(target)!r} cannot be written: {error.strerror or error}.") from error
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
    return target


def require_writable(target: Path, *, force: bool) -> None:
    """Raise OutputError where writing would surely fail: cheap to ask before long work."""
    if target.is_dir():
        raise OutputError(f"{str(target)!r} is a directory: name a file in it.")
    if target.exists() and not force:
        raise OutputError(
            f"{str(target)!r} exists already: choose another name, or overwrite it with --force (force=True)."
        )
    if not target.parent.is_dir():
        raise OutputError(
            f"{str(target)!r} cannot be written: the directory {str(target.parent)!r} does not exist."
        )
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{str(target)!r} cannot be written: no permission in {str(target.parent)!r}.")


def _rename_new(temporary: str, target: Path) -> None:
    """Take the name only if nobody took it meanwhile. POSIX rename would replace it: link does not."""
    if os.name == "nt":
        os.rename(temporary, target)
        return
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise
        os.rename(temporary, target)


def _umask() -> int:
    """The process's umask; reading it means setting it for a moment."""
    current = os.umask(0o077)
    os.umask(current)
    return current
