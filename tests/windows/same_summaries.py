"""Whether two ``poolport report --json`` tell the same of the same traces.

Usage: same_summaries.py ONE.json OTHER.json

Paths may be written differently, and means may differ in the last digits: numpy adds in another
order on another machine.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

PATHS = {"report", "path", "trace"}


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where the two differ, with both values."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [
            text for key in one.keys() - PATHS for text in differences(one[key], other[key], f"{where}.{key}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            text
            for at, pair in enumerate(zip(one, other, strict=True))
            for text in differences(*pair, f"{where}[{at}]")
        ]
    if isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=1e-12):
        return []
    return [] if one == other else [f"{where or 'all'}: {one!r} and {other!r}"]


def main() -> int:
    """Print what differs; 1 where anything does."""
    one, other = (json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:3])
    found = differences(one, other)
    print("\n".join(found) or f"{sys.argv[1]} and {sys.argv[2]} tell the same")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
