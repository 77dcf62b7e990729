"""One JSON writer for every result that the package or its commands give out.

A document is an object with `schema_version`, `kind` and the result's own fields. Dataclasses
become objects, tuples become lists, and what is no number in JSON (NaN, infinity) becomes null.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from analysis.atomic_file import write_whole

SCHEMA_VERSION = 1


def document(kind: str, **fields: object) -> dict[str, Any]:
    """Build the object of a result of some kind ("report", "bench", "replay")."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        **{name: plain(value) for name, value in fields.items()},
    }


def plain(value: object) -> Any:
    """Reduce a result to what JSON knows. Raises TypeError for what has no such form."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return plain(_reduced(value))


def _reduced(value: object) -> object:
    """One step towards what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def dumps(result: Mapping[str, Any]) -> str:
    """Text of a document: indented, keys in their order, non-ASCII kept, one newline at the end."""
    return json.dumps(plain(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(path: str | os.PathLike[str], result: Mapping[str, Any], *, force: bool = False) -> Path:
    """Write a document to a file; errors as those of `analysis.atomic_file.write_whole`."""
    return write_whole(path, dumps(result), force=force)
